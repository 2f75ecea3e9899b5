"""What custody systems say of subjects and images: facts, receipts, links, and the port to where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.shared.ports.event_log import Event

DISPOSALS = frozenset({
    "charged", "convicted", "cautioned", "acquitted", "no_further_action", "released_under_investigation", "other"
})  # fmt: skip
BIRTH_BANDS = frozenset({"under_18", "18_and_over"})


class ReceiptOutcome(StrEnum):
    """What became of one input."""

    ACCEPTED = "accepted"
    APPLIED = "applied"
    REPEATED = "repeated"
    STALE = "stale"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Of one input, by the producer's own id. `digest` is that of the message, so that an id used twice is seen."""

    owner: str
    event_id: str
    kind: str
    subject_id: str
    digest: str
    occurred_at_ms: int
    received_at_ms: int
    outcome: ReceiptOutcome
    reason: str = ""
    detail: str = ""
    enrolment_id: str = ""


@dataclass(frozen=True, slots=True)
class CustodyFacts:
    """What the owner says of one custody record. Unset parts leave what is known."""

    owner: str
    subject_id: str
    custody_reference: str
    as_of_ms: int
    disposal: str = ""
    disposal_on: str = ""
    birth_band: str = ""
    is_notice_given: bool | None = None


@dataclass(frozen=True, slots=True)
class EnrolmentFacts:
    """What the owner says of one image, beside the ledger's own row."""

    enrolment_id: str
    custody_reference: str
    birth_band: str
    is_notice_given: bool | None
    capture_device: str
    pose: str
    event_id: str


@dataclass(frozen=True, slots=True)
class SubjectLink:
    """From `as_of_ms` on what came as `subject_id` (one image of it, or all) belongs to `moved_to`."""

    owner: str
    subject_id: str
    image_sha256: str
    moved_to: str
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class OwnersItem:
    """One image as the owner counts it: by the event that it was sent in, or by subject and SHA-256."""

    event_id: str = ""
    subject_id: str = ""
    image_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where an owner's image is: an enrolment's state, or `refused` before it became one, or `never_received`."""

    item: OwnersItem
    state: str
    reason: str = ""
    detail: str = ""
    enrolment_id: str = ""


class CustodyLedger(Protocol):
    """Facts, receipts and links in the ledger's store. Every change is durable when it returns.

    All raise DependencyUnavailable.
    """

    def receipt(self, owner: str, event_id: str) -> Receipt | None:
        """What became of an owner's event; None when it never came."""
        ...

    def receive(self, receipt: Receipt, event: Event) -> None:
        """Keep the receipt, unless one that is not a refusal stands already, and publish its event."""
        ...

    def note_image(self, facts: EnrolmentFacts) -> None:
        """Keep what custody said of an image, beside its enrolment."""
        ...

    def note_custody(self, facts: CustodyFacts) -> bool:
        """Take over what is newer than what is known; False when nothing was."""
        ...

    def subject_of(self, owner: str, subject_id: str, image_sha256: str) -> str:
        """Under which subject this image stands now."""
        ...

    def link(self, link: SubjectLink, now_ms: int) -> int:
        """Remember the link and move the enrolments that it concerns, under new versions; how many. -1 when something
        newer is known. An image that the other subject has already is withdrawn as its duplicate."""
        ...

    def enrolments_of_image(
        self,
        owner: str,
        subject_id: str,
        image_sha256: str,
        *,
        until_ms: int | None = None,
        with_withdrawn: bool = False,
    ) -> Sequence[str]:
        """Enrolments of a subject, those that are not withdrawn, or not erased; of one image, or all for an empty
        SHA-256; of images that were captured for an event up to `until_ms`, or whenever."""
        ...

    def whereabouts(self, owner: str, items: Sequence[OwnersItem]) -> Sequence[Whereabouts]:
        """Where each of the owner's images is, one answer an item, in their order."""
        ...


class OwnerTurns(Protocol):
    """Keeps an owner's changes (merges, splits, withdrawals) apart from images that are being taken: an image looks up
    under which subject it stands and whether it was taken back, and a change must not come between that and its
    acceptance. Leaving a turn ends it, and so does the end of the process. Waiting is bounded: DependencyUnavailable.
    """

    def shared(self, owner: str) -> AbstractContextManager[None]:
        """For an image: together with other images, not with a change."""
        ...

    def alone(self, owner: str) -> AbstractContextManager[None]:
        """For a change: with nothing else of this owner."""
        ...
