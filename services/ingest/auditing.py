"""What ingest writes to the audit log. Entry ids are derived: written again after a crash, it is no second entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from services.ingest.enrolling.enrolment import (
    EnrolmentView,
    NewEnrolment,
    PendingEnrolment,
    PendingWithdrawal,
    Verdict,
    derived_id,
)
from services.ingest.life.retention import ReviewDecision
from services.ingest.ports import AuditTrail, OpenIntent
from services.rpc.auditing import platform_principal
from services.rpc.v1 import audit_pb2
from services.shared.errors import Conflict
from services.shared.ids import new_id
from services.shared.tokens import Principal

ENROLMENT = "enrolment"
WITHDRAWAL = "withdrawal"
GALLERY_FILL = "gallery_fill"
REVIEW = "retention_review"
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

    def record_intents(self, intents: Sequence[OpenIntent]) -> None:
        """All of them, or AuditUnavailable and nobody knows which."""
        self._record_once([self._intent(intent) for intent in intents])

    def close_intents(self, intents: Sequence[OpenIntent], phase: audit_pb2.Phase.ValueType, reason: str) -> None:
        """The terminal entries of intents that led to no enrolment."""
        details = {"reason": reason}
        self._record_once(
            [self._collection(phase, i.enrolment_id, self._platform, i.objects, details) for i in intents]
        )

    def record_outcomes(self, decided: Sequence[PendingEnrolment]) -> None:
        """The terminal entries of enrolments, after their durable decisions."""
        self._record_once([self._outcome(pending) for pending in decided])

    def record_refusal(self, enrolment_id: str, principal: Principal, what: str, code: str) -> None:
        """A request that the policy refused before anything was stored."""
        entry = self._collection(audit_pb2.REFUSED, enrolment_id, principal, (what,), {"reason": code})
        self._record_once([entry])

    def record_list(self, what: str, principal: Principal, shown: int) -> None:
        """Before a list of people, images or decisions is shown: a consultation of all the watchlists of the token."""
        objects = tuple(f"watchlist:{watchlist_id}" for watchlist_id in sorted(principal.watchlists))
        activity, details = (f"{what}_list", new_id()), {"shown": str(shown)}
        self._record_once([self._entry(audit_pb2.CONSULTATION, audit_pb2.DONE, activity, principal, objects, details)])

    def record_withdrawal_intent(self, view: EnrolmentView, principal: Principal, reason: str) -> None:
        objects = (f"watchlist:{view.watchlist_id}", f"reference:{view.reference_id}")
        phase, activity_id = audit_pb2.INTENT, view.enrolment_id
        entry = self._entry(audit_pb2.ERASURE, phase, (WITHDRAWAL, activity_id), principal, objects, {"reason": reason})
        self._record_once([entry])

    def record_withdrawal(self, withdrawal: PendingWithdrawal) -> None:
        objects = (f"watchlist:{withdrawal.watchlist_id}", f"reference:{withdrawal.reference_id}")
        activity = (WITHDRAWAL, withdrawal.enrolment_id)
        details = {"ledger_version": str(withdrawal.version)}
        self._record_once([self._entry(audit_pb2.ERASURE, audit_pb2.DONE, activity, self._platform, objects, details)])

    def record_review(self, view: EnrolmentView, decision: ReviewDecision, principal: Principal) -> None:
        """A retention review and what was decided: one entry, before it counts."""
        objects = (f"watchlist:{view.watchlist_id}", f"reference:{view.reference_id}")
        details = {"decision": decision.decision, "reason": decision.reason, "next_due_on": decision.next_due_on}
        activity = (REVIEW, decision.decision_id)
        facts = {name: text for name, text in details.items() if text}
        self._record_once([self._entry(audit_pb2.ALTERATION, audit_pb2.DONE, activity, principal, objects, facts)])

    def record_fill(
        self, phase: audit_pb2.Phase.ValueType, fill_id: str, principal: Principal, details: Mapping[str, str]
    ) -> None:
        objects = (f"watchlist:{details['watchlist']}",)
        activity = (GALLERY_FILL, fill_id)
        self._record_once([self._entry(audit_pb2.COLLECTION, phase, activity, principal, objects, details)])

    def _intent(self, intent: OpenIntent) -> audit_pb2.AuditEntry:
        return self._collection(audit_pb2.INTENT, intent.enrolment_id, intent.principal, intent.objects, intent.details)

    def _outcome(self, pending: PendingEnrolment) -> audit_pb2.AuditEntry:
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
        return self._collection(phase, pending.enrolment_id, self._platform, objects, details)

    def _collection(
        self,
        phase: audit_pb2.Phase.ValueType,
        enrolment_id: str,
        principal: Principal,
        objects: Sequence[str],
        details: Mapping[str, str],
    ) -> audit_pb2.AuditEntry:
        activity = (ENROLMENT, enrolment_id)
        return self._entry(audit_pb2.COLLECTION, phase, activity, principal, objects, details)

    def _entry(  # noqa: PLR0917 - what an entry says, in the order in which one says it
        self,
        operation: audit_pb2.Operation.ValueType,
        phase: audit_pb2.Phase.ValueType,
        activity: tuple[str, str],
        principal: Principal,
        objects: Sequence[str],
        details: Mapping[str, str],
    ) -> audit_pb2.AuditEntry:
        """One intent and one terminal entry an activity, whatever is tried again: they have an id each."""
        name, activity_id = activity
        part = "intent" if phase == audit_pb2.INTENT else "outcome"
        return self._trail.entry(
            operation,
            phase,
            name,
            activity_id,
            principal,
            objects=objects,
            details=details,
            entry_id=derived_id(activity_id, f"{name}/{part}"),
        )

    def _record_once(self, entries: Sequence[audit_pb2.AuditEntry]) -> None:
        if not entries:
            return
        try:
            self._trail.record_all(entries)
        except Conflict as error:
            if len(entries) > 1:
                for entry in entries:
                    self._record_once([entry])
                return
            # Written before a crash in other words. The log keeps the first and so do we.
            structlog.get_logger().warning("audit_entry_stands", activity_id=entries[0].activity_id, code=error.code)
