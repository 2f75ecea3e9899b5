"""What may not be enrolled any more, because it was erased, was taken back, or is being erased."""

from __future__ import annotations

from collections.abc import Sequence

from services.ingest.enrolling.enrolment import EnrolReference, NewEnrolment
from services.ingest.life.erasure import AWAITING_ERASURE, ERASED, ErasureRegister, ErasuresUnderWay, day_of
from services.shared.errors import Conflict

Asked = tuple[EnrolReference, NewEnrolment]


class BarErased:
    """Who enrols writes an intent, commits, and then asks here. Who erases a whole subject commits that, looks for
    intents, and then for what they left in the ledger. Whatever the order, one of the two sees the other.
    """

    def __init__(self, register: ErasureRegister, under_way: ErasuresUnderWay) -> None:
        self._register = register
        self._under_way = under_way

    def refusals(self, asked: Sequence[Asked]) -> list[Conflict | None]:
        """Why each of these is refused, in their order; None for what may be enrolled. Raises DependencyUnavailable."""
        subjects = {(new.key.owner, new.key.subject_id) for _, new in asked}
        # In this order: an erasure that has ended meanwhile has its tombstone.
        under_way = self._under_way.requested_at_ms(subjects)
        images = [(new.key.owner, new.key.subject_id, new.key.image_sha256) for _, new in asked]
        tombstones = self._register.find([*images, *((*subject, "") for subject in sorted(subjects))])
        answers: list[Conflict | None] = []
        for (command, new), image in zip(asked, images, strict=True):
            subject = image[:2]
            whole = tombstones.get((*subject, ""))
            if image in tombstones:
                tombstone = tombstones[image]
                answers.append(_was_erased("This image of this subject", tombstone.erasure_id, tombstone.is_erased))
            elif subject in under_way and is_from_before(command, new, under_way[subject]):
                answers.append(_is_being_erased())
            elif whole is not None and is_from_before(command, new, whole.erased_at_ms):
                answers.append(_was_erased("This subject", whole.erasure_id, whole.is_erased))
            else:
                answers.append(None)
        return answers


def is_from_before(command: EnrolReference, new: NewEnrolment, moment_ms: int) -> bool:
    """Whether it occurred up to then. A day says so only when it is an earlier one, or the image was here by then."""
    if command.occurred_at_ms is not None:
        return command.occurred_at_ms <= moment_ms
    return command.captured_on < day_of(moment_ms) or new.accepted_at_ms <= moment_ms


def _was_erased(what: str, erasure_id: str, is_erased: bool) -> Conflict:
    return Conflict(
        f"{what} was erased or taken back ({erasure_id}).",
        advice="It is not enrolled again; a new image may be, where there is a new lawful basis.",
        code=ERASED if is_erased else "withdrawn",
    )


def _is_being_erased() -> Conflict:
    return Conflict(
        "This subject is being erased, with everything of it from before that was asked for.",
        advice="Send it again if the erasure is lifted. An image that was captured later is enrolled.",
        code=AWAITING_ERASURE,
    )
