"""The end of a kept case: when its authority ends it is searched no more, and its pictures are erased."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import structlog

from services.review.casework.retention import Retention
from services.review.casework.steps import Casebook
from services.review.casework.trail import About
from services.review.model import Case, Erasure
from services.review.unsolved.ports import KeptLook, KeptState, KeptStore
from services.review.unsolved.settings import UnsolvedSettings
from services.review.workflow import Action, following
from services.rpc.auditing import platform_principal
from services.rpc.v1 import audit_pb2
from services.shared.errors import Conflict
from services.shared.tokens import Principal

_REASON = "The authority to keep this probe has ended."
_AT_ONCE = 100


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
        last_day = now.date() - timedelta(days=self._settings.erase_after_days)
        for case in self._kept.expired(last_day, _AT_ONCE):
            # First that it is begun, so that a stop between here and the last picture is found again.
            self._kept.put(case.request_id, KeptLook(0, "", KeptState.ERASING, _REASON, now))
            self._erase(case)

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


def _actor(case: Case) -> Principal:
    return replace(platform_principal("review"), force=case.force)
