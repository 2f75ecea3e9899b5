"""What whoever works on a kept case is told of its searches: when, and why not; never whether anybody was found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.review.casework.caller import Caller
from services.review.casework.looking import SEE_CASE
from services.review.casework.steps import Casebook
from services.review.casework.trail import About
from services.review.unsolved.ports import KeptState, KeptStore
from services.shared.errors import NotFound


@dataclass(frozen=True, slots=True)
class KeptView:
    """The same words whether a search found somebody or not; its own people find the case that it opened."""

    state: KeptState
    reason: str
    looked_at: datetime | None
    searched_at: datetime | None


class SeeKept:
    """Recorded before it is shown, as every look at a case."""

    def __init__(self, book: Casebook, kept: KeptStore) -> None:
        self._book = book
        self._kept = kept

    def __call__(self, caller: Caller, request_id: str) -> KeptView:
        """Raises NotFound, Forbidden, AuditUnavailable."""
        with self._book.refusals(caller, SEE_CASE, request_id):
            case = self._book.working(caller, request_id)
            if case.unsolved is None:
                raise NotFound("The case is not in the unsolved file.", advice="Look at the case.")
        self._book.trail.consulted(caller.principal, SEE_CASE, About.case(case))
        look = self._kept.find(request_id)
        if look is None:
            return KeptView(KeptState.WAITING, "", None, None)
        # One that is under way looks as one that waits.
        return KeptView(look.state, look.reason, look.looked_at, look.searched_at)
