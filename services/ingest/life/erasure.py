"""What an erasure is: its command, its states, the tombstones that it leaves, and the ports that it needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from services.rpc.v1 import audit_pb2
from services.shared.ports.event_log import Event


def day_of(moment_ms: int) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).date().isoformat()


class ErasureState(StrEnum):
    """requested → quarantined → erasing → erased; from the first two also → lifted."""

    # The references are being taken out of search.
    REQUESTED = "requested"
    # Out of search; everything can still be put back.
    QUARANTINED = "quarantined"
    # Past the point of no return.
    ERASING = "erasing"
    ERASED = "erased"
    LIFTED = "lifted"


AWAITING_ERASURE = "awaiting_erasure"  # the reason of a quarantined enrolment
ERASED = "erased"  # the reason of a withdrawn one, and the code that refuses it when it is sent again
# In an erasure's `done`: how many of its enrolments were on their way when it was asked for.
CAME_MEANWHILE = "came_meanwhile"
OPEN_STATES = (ErasureState.REQUESTED, ErasureState.QUARANTINED, ErasureState.ERASING)


@dataclass(frozen=True, slots=True)
class Erasure:
    """A command to erase. `due_at_ms` is 0 for at once. `enrolment_ids`: all that it takes with it.

    `done` counts what was removed, by store.
    """

    erasure_id: str
    owner: str
    subject_id: str
    is_whole_subject: bool
    enrolment_ids: tuple[str, ...]
    reason: str
    authority: str
    person_id: str
    requested_at_ms: int
    due_at_ms: int
    state: ErasureState = ErasureState.REQUESTED
    finished_at_ms: int | None = None
    done: Mapping[str, int] = field(default_factory=dict)
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class ErasedRow:
    """An enrolment of an erasure as far as the other stores have to be told of it."""

    enrolment_id: str
    reference_id: str
    version: int
    watchlist_id: str
    image_sha256: str
    model_id: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """This image of this subject was erased and stays so. With an empty `image_sha256`: the subject as a whole, and
    nothing that happened up to `erased_at_ms` may come back."""

    owner: str
    subject_id: str
    image_sha256: str
    erasure_id: str
    erased_at_ms: int
    # False where the owner only took the image back.
    is_erased: bool = True


class ErasureLedger(Protocol):
    """Erasures and their enrolments in the ledger's store. Every change is durable when it returns.

    All raise DependencyUnavailable.
    """

    def enrolments_of(self, owner: str, subject_id: str) -> Sequence[tuple[str, str, str]]:
        """Enrolment id, watchlist and state of everything of a subject that is not erased: also of what was withdrawn,
        whose image is still there."""
        ...

    def open(self, erasure: Erasure) -> None:
        """Record it, and take its enrolments out of what may be searched: `quarantined`, awaiting erasure."""
        ...

    def unfinished(self) -> Sequence[Erasure]:
        """Oldest first."""
        ...

    def is_being_enrolled(self, owner: str, subject_id: str) -> bool:
        """Whether somebody is just bringing an image of the subject. To be asked before `latecomers`: who is not seen
        by the one is seen by the other."""
        ...

    def latecomers(self, erasure: Erasure) -> Sequence[str]:
        """Enrolments of the subject from before it was asked for that came into the ledger since."""
        ...

    def take_along(self, erasure_id: str, enrolment_ids: Sequence[str]) -> None:
        """These too, out of what may be searched, while it is `requested`; counted as CAME_MEANWHILE."""
        ...

    def find(self, erasure_id: str) -> Erasure | None: ...

    def list(self, owner: str, limit: int) -> Sequence[Erasure]:
        """Newest first."""
        ...

    def rows(self, erasure: Erasure) -> Sequence[ErasedRow]:
        """The enrolments that it erases, with what must be removed elsewhere."""
        ...

    def images_in_use(self, sha256s: Sequence[str], but_for: Sequence[str]) -> frozenset[str]:
        """Which of these images some enrolment still rests on that is neither withdrawn nor one of these."""
        ...

    def move(self, erasure_id: str, state: ErasureState, done: Mapping[str, int] | None = None) -> None:
        """Write its new state, and with it what was done so far, by kind."""
        ...

    def erase_rows(self, erasure: Erasure, now_ms: int) -> int:
        """Leave a bare tombstone of each enrolment: no template, no quality, no text; returns how many had any.

        Leaves no earlier page of it in an embedded store.
        """
        ...

    def finish(self, erasure_id: str, certificate: str, now_ms: int, events: Sequence[Event]) -> None:
        """Keep the certificate and publish the events, in one transaction."""
        ...

    def lift(self, erasure_id: str) -> int:
        """Put its enrolments back to work, under new versions, but for those that another open erasure takes with it;
        returns how many. -1 when it is too late."""
        ...

    def standing(self, tombstones: Sequence[Tombstone]) -> Sequence[tuple[Tombstone, str]]:
        """Enrolments that stand although a tombstone says otherwise, as a restored backup or a replay leaves them."""
        ...


class ErasuresUnderWay(Protocol):
    """Subjects that are being erased as a whole, as those have to know them who enrol."""

    def requested_at_ms(self, subjects: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        """When the latest was asked for that has not ended, by (owner, subject_id); the others are left out.

        Raises DependencyUnavailable.
        """
        ...


class ErasureRegister(Protocol):
    """Tombstones, kept apart from the ledger: a ledger that is restored from a backup meets them again."""

    def add(self, tombstones: Sequence[Tombstone]) -> None:
        """Durable when it returns. The same tombstone again changes nothing."""
        ...

    def find(self, keys: Sequence[tuple[str, str, str]]) -> Mapping[tuple[str, str, str], Tombstone]:
        """By (owner, subject_id, image_sha256)."""
        ...

    def all(self) -> Sequence[Tombstone]:
        """Every tombstone there is."""
        ...


class ErasureProof(Protocol):
    """The audit log, as an erasure needs it."""

    def record_intent(self, erasure: Erasure) -> audit_pb2.AppendResponse:
        """Durable before anything is erased. Raises AuditUnavailable."""
        ...

    def record_outcome(
        self, erasure: Erasure, phase: audit_pb2.Phase.ValueType, details: Mapping[str, str]
    ) -> audit_pb2.AppendResponse:
        """What came of it, by kind. Raises AuditUnavailable."""
        ...

    def prove(self, sequence: int) -> tuple[audit_pb2.InclusionProof, audit_pb2.Checkpoint]:
        """That an entry is in the log, under a checkpoint that covers it. Raises AuditUnavailable."""
        ...
