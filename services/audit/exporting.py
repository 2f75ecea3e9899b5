"""The whole log leaves for one recipient, whom a second person approved, once, and says so in its first line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from services.audit.consulting import AUDITOR, SUPERVISOR, Consulting, texts
from services.audit.entries import Statement
from services.audit.export_form import EXPORT_ACTIVITY, disclosure_of
from services.audit.log import AuditLog
from services.audit.ports import EntryFilter, LogStore
from services.audit.reading import export_lines
from services.audit.verification import Checkpoint
from services.shared.clock import Clock
from services.shared.errors import Conflict, Forbidden, LikenessError
from services.shared.ids import is_id
from services.shared.people import is_same_person
from services.shared.tokens import Principal

EXPORT, APPROVAL = EXPORT_ACTIVITY, "audit_export_approval"
APPROVERS = frozenset({AUDITOR, SUPERVISOR})
LIFETIME = timedelta(hours=24)
_ADVICE = "An auditor or a supervisor other than you approves: POST /v1/audit/export-approvals."


@dataclass(frozen=True, slots=True)
class ExportApproval:
    """One export of the log to one recipient, as a second person approved it. It serves once."""

    approval_id: str
    recipient: str
    reason: str
    approved_by: str
    approved_at: datetime

    @property
    def expires_at(self) -> datetime:
        return self.approved_at + LIFETIME


class WholeLogExport(Consulting):
    """Approvals are entries of the log itself, and so is their use: there is no other store that could be edited.

    Every call raises Forbidden (recorded too) for a caller without the role, and AuditUnavailable.
    """

    def __init__(self, log: AuditLog, store: LogStore, clock: Clock) -> None:
        super().__init__(log, clock)
        self._store = store

    def approve(self, approver: Principal, recipient: str, reason: str) -> ExportApproval:
        """Somebody else may then export the log to this recipient, once, within LIFETIME."""
        self._require(approver, APPROVAL, APPROVERS)
        told = texts(recipient=recipient, reason=reason)
        made = replace(
            self._statement(approver, APPROVAL, told, objects=(f"audit_log:{self._log.log_id}",), phase="DONE"),
            operation="DISCLOSURE",
            recipients=(_named(recipient),),
        )
        appended = self._log.append(made)
        return ExportApproval(
            made.activity_id, recipient, reason, approver.person_id, datetime.fromisoformat(appended.recorded_at)
        )

    def __call__(self, reader: Principal, approval_id: str, reason: str) -> Iterator[bytes]:
        """The lines of an export of the whole log, under a checkpoint that covers all of it.

        The intent is durable when this returns, before the first line is made; the outcome follows the last line.
        Raises Conflict (`approval_needed`, `approval_used`) and Forbidden (`own_approval`), recorded.
        """
        self._require(reader, EXPORT, frozenset({AUDITOR}))
        try:
            approval = self._usable(reader, approval_id)
            intent = self._use(reader, approval, reason)
        except (Conflict, Forbidden) as error:
            self._refused(reader, EXPORT, error.code)
            raise
        try:
            checkpoint = self._log.checkpoint(fresh=True)
        except LikenessError:
            self._end(reader, intent, {}, phase="FAILED")
            raise
        return self._lines(reader, intent, checkpoint, approval)

    def _usable(self, reader: Principal, approval_id: str) -> ExportApproval:
        approval = self._find(approval_id) if is_id(approval_id) else None
        if approval is None or self._clock.now() >= approval.expires_at:
            raise Conflict(
                "An export of the log needs an approval that can still be used.", advice=_ADVICE, code="approval_needed"
            )
        if is_same_person(approval.approved_by, reader.person_id):
            raise Forbidden("Nobody exports the log on their own approval.", advice=_ADVICE, code="own_approval")
        return approval

    def _find(self, approval_id: str) -> ExportApproval | None:
        for entry in self._store.page(EntryFilter(activity=APPROVAL, activity_id=approval_id), self._log.size, 1):
            facts = entry.facts()
            if facts["phase"] == "DONE":
                told: Mapping[str, str] = facts["details"]
                moment = datetime.fromisoformat(facts["recorded_at"])
                return ExportApproval(
                    approval_id, told["recipient"], told["reason"], facts["actor"]["person_id"], moment
                )
        return None

    def _use(self, reader: Principal, approval: ExportApproval, reason: str) -> Statement:
        told = texts(
            reason=reason,
            approval=approval.approval_id,
            approved_by=approval.approved_by,
            recipient=approval.recipient,
        )
        made = self._statement(reader, EXPORT, told, objects=(f"audit_log:{self._log.log_id}",))
        intent = replace(
            made,
            # An id that follows from the approval: the log itself takes no second use of it.
            entry_id=str(uuid5(UUID(approval.approval_id), EXPORT)),
            operation="DISCLOSURE",
            recipients=(_named(approval.recipient),),
        )
        try:
            self._log.append(intent)
        except Conflict as error:
            raise Conflict("The approval has been used.", advice="Ask for another.", code="approval_used") from error
        return intent

    def _lines(
        self, reader: Principal, intent: Statement, checkpoint: Checkpoint, approval: ExportApproval
    ) -> Iterator[bytes]:
        phase = "FAILED"  # also when the reader goes away half-way
        disclosed = disclosure_of(approval.approval_id, approval.recipient, approval.approved_by)
        try:
            yield from export_lines(self._store, checkpoint, disclosed)
            phase = "DONE"
        finally:
            self._end(reader, intent, {"entries": str(checkpoint.tree_size)}, phase=phase)


def _named(recipient: str) -> str:
    return f"recipient:{recipient}"
