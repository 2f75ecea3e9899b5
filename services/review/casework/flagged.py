"""A flagged probe: search says that a supervisor has to decide before anything is made of its candidates.

Which signals raise a flag, and how often they err, is in docs/probes.md. A flag proves nothing and its absence clears
nothing: a person decides, with reasons, once for each picture and each flag of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.review.casework.caller import Caller
from services.review.casework.forms import prose
from services.review.casework.steps import Casebook, Step
from services.review.model import Case, ProbeDecision, SearchRecord, SearchVariant
from services.review.workflow import Action
from services.shared.errors import Forbidden
from services.shared.people import is_same_person

UNNAMED_FLAG = "needs_supervisor"  # search asks for a supervisor and names no flag


@dataclass(frozen=True, slots=True)
class FlaggedPicture:
    """A picture that was searched, and what search says against it: (code, words), worst told first."""

    probe_id: str
    variant: SearchVariant
    enhancement_id: str | None
    image_sha256: str
    flags: tuple[tuple[str, str], ...]

    @property
    def codes(self) -> frozenset[str]:
        return frozenset(code for code, _ in self.flags)


def flagged(records: Sequence[SearchRecord]) -> tuple[FlaggedPicture, ...]:
    """Every searched picture that needs a supervisor, once."""
    found: dict[str, FlaggedPicture] = {}
    for record in records:
        if said := _flags(record):
            found[record.image_sha256] = FlaggedPicture(
                record.probe_id, record.variant, record.enhancement_id, record.image_sha256, said
            )
    return tuple(found.values())


def undecided(records: Sequence[SearchRecord], decisions: Sequence[ProbeDecision]) -> tuple[FlaggedPicture, ...]:
    """Those whose flags nobody has allowed. A decision is of one picture and of the flags that it had then."""
    return tuple(
        picture
        for picture in flagged(records)
        if not any(
            one.is_allowed and picture.codes <= frozenset(one.flags.get(picture.image_sha256, ())) for one in decisions
        )
    )


def _flags(record: SearchRecord) -> tuple[tuple[str, str], ...]:
    probe = record.answer.get("probe", {})
    said = tuple((str(flag["code"]), str(flag["detail"])) for flag in probe.get("flags", ()))
    if said or not probe.get("needs_supervisor"):
        return said
    return ((UNNAMED_FLAG, "Search asks for a supervisor and does not say why."),)


class FlaggedProbes:
    """A supervisor decides whether a flagged probe may be used. Nobody else, and not who searched it."""

    def __init__(self, book: Casebook) -> None:
        self._book = book

    def allow(self, caller: Caller, request_id: str, version: int, reason: str) -> Case:
        """FLAGGED to SEARCHED: its candidates may be judged. The decision is printed on the result.

        Raises Forbidden (`own_request`, `searched_it`), InvalidRequest, Conflict, NotFound.
        """
        return self._decide(caller, request_id, version, Action.ALLOW_PROBE, reason)

    def refuse(self, caller: Caller, request_id: str, version: int, reason: str) -> Case:
        """FLAGGED to UNSUITABLE: nobody judges its candidates; the requester reads the reason. Raises as `allow`."""
        return self._decide(caller, request_id, version, Action.REFUSE_PROBE, reason)

    def _decide(self, caller: Caller, request_id: str, version: int, action: Action, reason: str) -> Case:
        with self._book.step(caller, request_id, action, version) as step:
            _require_other(caller, step)
            pictures = undecided(step.case.searches, step.case.probe_decisions)
            decision = ProbeDecision(
                is_allowed=action is Action.ALLOW_PROBE,
                flags={picture.image_sha256: tuple(sorted(picture.codes)) for picture in pictures},
                reason=prose("reason", reason),
                decided_by=caller.person_id,
                decided_at=self._book.clock.now(),
            )
            step.act.objects.extend(f"probe:{picture.image_sha256}" for picture in pictures)
            step.act.details["flags"] = ",".join(sorted({code for picture in pictures for code in picture.codes}))
            told = step.case.told
            return step.move(
                probe_decisions=(*step.case.probe_decisions, decision),
                # Who decided on a case that its own people alone are told of knows of it, also afterwards.
                told=told and tuple(dict.fromkeys((*told, caller.person_id))),
            )


def _require_other(caller: Caller, step: Step) -> None:
    if any(is_same_person(record.searched_by, caller.person_id) for record in step.case.searches):
        raise Forbidden(
            "Who searched a flagged probe does not decide whether it may be used.",
            advice="Another supervisor has to do it.",
            context={"reasons": ["searched_it"]},
        )
