"""The end of a kept case: when its authority ends it is searched no more, and some time later its pictures are erased.

That time runs from the moment at which the end was seen and noted, not from the day on which it was due: a clock that
is suddenly years ahead would find every kept case long expired, and what is erased does not come back. Whoever sets it
right in time finds them all still there.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from services.review.casework.retention import Retention
from services.review.casework.steps import Casebook
from services.review.casework.trail import About
from services.review.model import Case, CaseState, Erasure
from services.review.unsolved.ports import KeptCase, KeptState, KeptStore
from services.review.unsolved.searching import first_look
from services.review.unsolved.settings import UnsolvedSettings
from services.review.workflow import Action, following
from services.rpc.auditing import platform_principal
from services.rpc.v1 import audit_pb2
from services.shared.errors import Conflict
from services.shared.tokens import Principal

_REASON = "The authority to keep this probe has ended."
_AT_ONCE = 100
_NOTED_AT_ONCE = 10_000  # a line each; a unit keeps hundreds


class EndKept:
    """Closes kept cases whose time is over and erases their pictures, as `Retention.erase` does for a person."""

    def __init__(self, settings: UnsolvedSettings, book: Casebook, kept: KeptStore, retention: Retention) -> None:
        self._settings = settings
        self._book = book
        self._kept = kept
        self._retention = retention

    def turn(self) -> None:
        """Raises PlatformError; what a failure leaves behind the next turn erases."""
        now = self._book.clock.now()
        for one in self._kept.erasing(_AT_ONCE):
            self._erase(one.case)
        for case in self._kept.expired(now.date(), _NOTED_AT_ONCE):
            self._note(case, now)
        due = now - timedelta(days=self._settings.erase_after_days)
        for one in self._kept.ended(_NOTED_AT_ONCE):
            if not _is_over(one.case, now):
                self._resume(one, now)
            elif one.case.state is CaseState.UNSOLVED and one.look is not None and one.look.looked_at <= due:
                # First that it is begun, so that a stop between here and the last picture is found again.
                self._kept.put(one.case.request_id, replace(one.look, state=KeptState.ERASING))
                self._erase(one.case)

    def _note(self, case: Case, now: datetime) -> None:
        known = self._kept.find(case.request_id) or first_look(case, now)
        if known.state is not KeptState.ENDED:
            self._kept.put(
                case.request_id, replace(known, state=KeptState.ENDED, reason=_REASON, looked_at=now, pending=None)
            )

    def _resume(self, one: KeptCase, now: datetime) -> None:
        """The clock had been ahead: the authority has not ended at all."""
        known = one.look or first_look(one.case, now)
        self._kept.put(one.case.request_id, replace(known, state=KeptState.WAITING, reason="", looked_at=now))
        structlog.get_logger().warning("kept_case_had_not_ended", request_id=one.case.request_id)

    def _erase(self, case: Case) -> None:
        actor = _actor(case)
        try:
            with self._book.trail.act(
                actor, Action.ERASE.value, About.case(case), audit_pb2.ERASURE, {"reason": _REASON}
            ) as act:
                standing = case if case.erasure is not None else self._close(case, actor)
                act.objects += self._retention.erase_pictures(standing)
                act.details["state"] = standing.state.value
        except Conflict:
            # Somebody has the case in hand at this moment: the next turn sees what became of it.
            structlog.get_logger().info("kept_case_changed_meanwhile", request_id=case.request_id)
        self._kept.forget(case.request_id)

    def _close(self, case: Case, actor: Principal) -> Case:
        now = self._book.clock.now()
        closed = replace(
            case,
            state=following(case.state, Action.ERASE),
            updated_at=now,
            erasure=Erasure(_REASON, actor.person_id, now),
        )
        return self._book.store.save(closed)


def _is_over(case: Case, now: datetime) -> bool:
    return case.unsolved is None or case.unsolved.expires_on <= now.date()


def _actor(case: Case) -> Principal:
    return replace(platform_principal("review"), force=case.force)
