"""What ingest writes to the audit log. Entry ids are derived: written again after a crash, it is no second entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from services.ingest.enrolment import (
    EnrolmentView,
    NewEnrolment,
    PendingEnrolment,
    PendingWithdrawal,
    Verdict,
    derived_id,
)
from services.ingest.ports import AuditTrail, OpenIntent
from services.rpc.auditing import platform_principal
from services.rpc.v1 import audit_pb2
from services.shared.errors import Conflict
from services.shared.tokens import Principal

ENROLMENT = "enrolment"
WITHDRAWAL = "withdrawal"
GALLERY_FILL = "gallery_fill"
_PHASES = {
    Verdict.ENROL: audit_pb2.DONE,
    Verdict.REFUSE: audit_pb2.REFUSED,
    Verdict.QUARANTINE: audit_pb2.FAILED,
}


def intent_of(new: NewEnrolment, principal: Principal) -> OpenIntent:
    key = new.key
    objects = (f"watchlist:{key.watchlist_id}", f"subject:{key.owner}/{key.subject_id}", f"image:{key.image_sha256}")
    details = {
        "source": new.source.value,
        "owner": key.owner,
        "lawful_basis": new.lawful_basis,
        "captured_on": new.captured_on,
        "agreement_reference": new.agreement_reference,
        "model_id": key.model_id,
    }
    return OpenIntent(new.enrolment_id, principal, objects, {k: v for k, v in details.items() if v})


class EnrolmentAudit:
    """The entries of enrolments, withdrawals and gallery fills. Everything here raises AuditUnavailable."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail
        self._platform = platform_principal("ingest")

    def record_intent(self, intent: OpenIntent) -> None:
        self._collection(
            audit_pb2.INTENT, intent.enrolment_id, intent.principal, objects=intent.objects, details=intent.details
        )

    def close_intent(self, intent: OpenIntent, phase: audit_pb2.Phase.ValueType, reason: str) -> None:
        """The terminal entry of an intent that led to no enrolment."""
        self._collection(phase, intent.enrolment_id, self._platform, objects=intent.objects, details={"reason": reason})

    def record_outcome(self, pending: PendingEnrolment) -> None:
        """The terminal entry of an enrolment, after its durable decision."""
        decision = pending.decision
        if decision is None:
            raise ValueError(f"enrolment {pending.enrolment_id} has no decision")
        key = pending.key
        objects = [f"watchlist:{key.watchlist_id}", f"image:{key.image_sha256}"]
        details = {"state": decision.verdict.state.value, "model_id": key.model_id}
        if decision.verdict is Verdict.ENROL:
            objects.append(f"reference:{pending.reference_id}")
        else:
            details["reason"] = decision.reason
        phase = _PHASES[decision.verdict]
        self._collection(phase, pending.enrolment_id, self._platform, objects=objects, details=details)

    def record_refusal(self, enrolment_id: str, principal: Principal, what: str, code: str) -> None:
        """A request that the policy refused before anything was stored."""
        self._collection(
            audit_pb2.REFUSED,
            enrolment_id,
            principal,
            objects=(what,),
            details={"reason": code},
        )

    def record_withdrawal_intent(self, view: EnrolmentView, principal: Principal, reason: str) -> None:
        self._record_once(
            WITHDRAWAL,
            view.enrolment_id,
            principal,
            operation=audit_pb2.ERASURE,
            phase=audit_pb2.INTENT,
            objects=(f"watchlist:{view.watchlist_id}", f"reference:{view.reference_id}"),
            details={"reason": reason},
        )

    def record_withdrawal(self, withdrawal: PendingWithdrawal) -> None:
        self._record_once(
            WITHDRAWAL,
            withdrawal.enrolment_id,
            self._platform,
            operation=audit_pb2.ERASURE,
            phase=audit_pb2.DONE,
            objects=(f"watchlist:{withdrawal.watchlist_id}", f"reference:{withdrawal.reference_id}"),
            details={"ledger_version": str(withdrawal.version)},
        )

    def record_fill(
        self, phase: audit_pb2.Phase.ValueType, fill_id: str, principal: Principal, details: Mapping[str, str]
    ) -> None:
        self._record_once(
            GALLERY_FILL,
            fill_id,
            principal,
            operation=audit_pb2.COLLECTION,
            phase=phase,
            objects=(f"watchlist:{details['watchlist']}",),
            details=details,
        )

    def _collection(
        self,
        phase: audit_pb2.Phase.ValueType,
        enrolment_id: str,
        principal: Principal,
        *,
        objects: Sequence[str],
        details: Mapping[str, str],
    ) -> None:
        self._record_once(
            ENROLMENT,
            enrolment_id,
            principal,
            operation=audit_pb2.COLLECTION,
            phase=phase,
            objects=objects,
            details=details,
        )

    def _record_once(
        self,
        activity: str,
        activity_id: str,
        principal: Principal,
        *,
        operation: audit_pb2.Operation.ValueType,
        phase: audit_pb2.Phase.ValueType,
        objects: Sequence[str],
        details: Mapping[str, str],
    ) -> None:
        """One intent and one terminal entry an activity, whatever is tried again: they have an id each."""
        part = "intent" if phase == audit_pb2.INTENT else "outcome"
        try:
            self._trail.record(
                operation,
                phase,
                activity,
                activity_id,
                principal,
                objects=objects,
                details=details,
                entry_id=derived_id(activity_id, f"{activity}/{part}"),
            )
        except Conflict as error:
            # Written before a crash in other words. The log keeps the first and so do we.
            structlog.get_logger().warning("audit_entry_stands", activity_id=activity_id, part=part, code=error.code)
