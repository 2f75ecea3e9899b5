"""A custodian's decision about a flag."""

from __future__ import annotations

from services.ingest.enrolling.checks import MAX_TEXT
from services.ingest.flags.model import DECISIONS, Flag, FlagState, FlagStore
from services.ingest.flags.trail import FlagTrail
from services.shared.clock import Clock
from services.shared.errors import Conflict, InvalidRequest, NotFound
from services.shared.ids import is_id
from services.shared.tokens import Principal


class DecideFlag:
    """Records what a person found. It changes the flag and nothing else: whoever finds that two subjects are one says
    so as their owner, through the custody feed, and that is another act."""

    def __init__(self, store: FlagStore, trail: FlagTrail, clock: Clock) -> None:
        self._store = store
        self._trail = trail
        self._clock = clock

    def find(self, flag_id: str, principal: Principal) -> Flag:
        """Raises NotFound for what is not there and for what is not the caller's alike."""
        flag = self._store.find(flag_id) if is_id(flag_id) else None
        if flag is None or flag.owner != principal.force or flag.watchlist_id not in principal.watchlists:
            raise NotFound("No such flag.", advice="Check the flag_id and that your token permits its watchlist.")
        return flag

    def view(self, flag_id: str, principal: Principal) -> Flag:
        """Raises NotFound, AuditUnavailable."""
        flag = self.find(flag_id, principal)
        self._trail.viewed(flag, principal)
        return flag

    def decide(self, flag_id: str, state: FlagState, reason: str, principal: Principal) -> Flag:
        """Of two who decide at once one wins and the other gets Conflict; both attempts are in the audit log.

        Raises NotFound, InvalidRequest, Conflict (decided already), AuditUnavailable.
        """
        flag = self.find(flag_id, principal)
        _check(state, reason)
        with self._trail.deciding(principal, flag, state.value, reason):
            now_ms = int(self._clock.now().timestamp() * 1000)
            is_decided = self._store.decide(flag_id, state, principal.person_id, reason, now_ms)
            decided = self.find(flag_id, principal)
            if not is_decided:
                raise Conflict(
                    f"This flag is {decided.state.value}.",
                    advice="Look at it again: somebody decided before you.",
                    code="flag_decided",
                    context={"state": decided.state.value, "decided_by": decided.decided_by},
                )
        return decided


def _check(state: FlagState, reason: str) -> None:
    if state not in DECISIONS:
        raise InvalidRequest("`decision` has to be dismissed or acted.", advice="Say which.")
    if not reason.strip() or len(reason) > MAX_TEXT or not reason.isprintable():
        raise InvalidRequest("`reason` is empty, too long or not printable.", advice="Say why, in a sentence.")
