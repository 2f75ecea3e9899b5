"""The use case of withdrawing a reference, and finishing what it needs of other services."""

from __future__ import annotations

from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.checks import MAX_TEXT
from services.ingest.enrolling.enrolment import EnrolmentState, EnrolmentView
from services.ingest.events import withdrawal_events
from services.ingest.ports import EnrolmentLedger, GalleryWriter
from services.shared.clock import Clock
from services.shared.errors import InvalidRequest
from services.shared.tokens import Principal

_BATCH = 100


class WithdrawReference:
    """Withdraws one enrolment, whatever its state. The order is law: intent, tombstone, gallery, outcome.

    The answer comes when the tombstone is durable: from then on nothing brings the reference back, and the gallery
    lets go of it at once or, while it is away, as soon as it is there.
    """

    def __init__(self, ledger: EnrolmentLedger, gallery: GalleryWriter, audit: EnrolmentAudit, clock: Clock) -> None:
        self._ledger = ledger
        self._gallery = gallery
        self._audit = audit
        self._clock = clock

    def withdraw(self, view: EnrolmentView, principal: Principal, reason: str) -> None:
        """Durable when it returns. Raises InvalidRequest, AuditUnavailable, DependencyUnavailable."""
        if not reason.strip() or len(reason) > MAX_TEXT or not reason.isprintable():
            raise InvalidRequest(
                f"`reason` is empty, longer than {MAX_TEXT} characters or not printable.",
                advice="Say why the reference is withdrawn, in a sentence.",
            )
        if view.state is EnrolmentState.WITHDRAWN:
            return
        self._audit.record_withdrawal_intent(view, principal, reason)
        now_ms = int(self._clock.now().timestamp() * 1000)
        self._ledger.withdraw(view.enrolment_id, principal.person_id, reason, now_ms)

    def finish_all(self) -> int:
        """Take tombstoned references out of the gallery and write their outcomes; returns how many.

        Raises DependencyUnavailable, GalleryIncomplete, AuditUnavailable: the rest is for the next call.
        """
        withdrawals = self._ledger.unsettled_withdrawals(_BATCH)
        if withdrawals:
            self._gallery.withdraw([w.reference_id for w in withdrawals], [w.version for w in withdrawals])
        for withdrawal in withdrawals:
            self._audit.record_withdrawal(withdrawal)
            self._ledger.settle_withdrawal(withdrawal, withdrawal_events(withdrawal))
        return len(withdrawals)
