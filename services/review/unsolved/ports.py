"""The ports of the unsolved file's own work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol

from services.review.model import Case
from services.rpc.v1 import unsolved_pb2


class KeptState(StrEnum):
    """What came of the last look at a case. None of them says whether anybody was found."""

    WAITING = "waiting"
    SEARCHED = "searched"
    # Nothing was enrolled or withdrawn since it was searched.
    UNCHANGED = "unchanged"
    # The policy, an agreement or the keeper's own rights say no: it was not searched.
    DENIED = "denied"
    # It could not be searched, and not because something was away for a moment.
    FAILED = "failed"
    # Kept before the keeper's rights were noted with it: a person searches it again.
    NO_MANDATE = "no_mandate"
    # Its authority was seen to have ended at `looked_at`; its pictures are erased some time after that moment.
    ENDED = "ended"
    # Its pictures are being erased.
    ERASING = "erasing"


@dataclass(frozen=True, slots=True)
class KeptLook:
    """How far a kept case has been searched.

    `since_ms` is the watermark: references that became searchable later have not been looked at. `snapshot` is the
    gallery that was searched last. `pending` is the id of a search that was begun: done again under the same id after
    a stop, it is the same search.
    """

    since_ms: int
    snapshot: str
    state: KeptState
    reason: str
    looked_at: datetime
    # The last time that the gallery was really searched, or found to be what it was.
    searched_at: datetime | None = None
    pending: str | None = None


@dataclass(frozen=True, slots=True)
class KeptCase:
    """A case of the unsolved file with its look; None before the first."""

    case: Case
    look: KeptLook | None


class KeptStore(Protocol):
    """Every method is one transaction, durable when it returns. All raise DependencyUnavailable."""

    def due(self, looked_before: datetime, denied_before: datetime, limit: int, *, now: datetime) -> Sequence[KeptCase]:
        """Cases in the unsolved file that were not looked at since, those never looked at and longest ago first; and
        those that were looked at after `now`, by a clock that was set back since."""
        ...

    def expired(self, last_day: date, limit: int) -> Sequence[Case]:
        """Cases in the unsolved file whose authority ended on that day or before."""
        ...

    def ended(self, limit: int) -> Sequence[KeptCase]:
        """Cases whose authority was seen to have ended, longest ago first."""
        ...

    def erasing(self, limit: int) -> Sequence[KeptCase]:
        """Cases whose erasure was begun and is not known to be complete."""
        ...

    def find(self, request_id: str) -> KeptLook | None:
        """What was noted when it was last looked at; None before that."""
        ...

    def begin(self, request_id: str, before: KeptLook | None, look: KeptLook) -> bool:
        """Store a look with `pending`, unless somebody else has begun one meanwhile: then False."""
        ...

    def put(self, request_id: str, look: KeptLook) -> None:
        """Store what came of it."""
        ...

    def forget(self, request_id: str) -> None:
        """Nothing is left to do for it."""
        ...

    def continuations(self, case: Case) -> Sequence[Case]:
        """The cases that were opened because a new search of this one found somebody new."""
        ...


class KeptSearcher(Protocol):
    """Search, as a service asks it; `services.rpc.unsolved.UnsolvedClient`."""

    def search_again(self, request: unsolved_pb2.SearchAgainRequest) -> bytes | None:
        """The answer's JSON; None where the gallery is what it was. Raises what search raises."""
        ...
