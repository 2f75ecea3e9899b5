"""The whole log over REST: a second person says to whom, then it leaves once."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from services.audit.exporting import WholeLogExport

_PRINTABLE = r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$"
_Reason = Annotated[str, Query(max_length=200, description="Why the log is read; recorded with the reading.")]
_Approval = Annotated[str, Query(max_length=64, description="The approval of somebody other than you.")]


class ExportApprovalRequest(BaseModel):
    """To whom the log is to be exported, and why."""

    model_config = ConfigDict(extra="forbid")

    recipient: str = Field(min_length=3, max_length=200, pattern=_PRINTABLE, examples=["Biometrics Commissioner"])
    reason: str = Field(min_length=3, max_length=200, pattern=_PRINTABLE)


class ExportApprovalView(BaseModel):
    """It serves one export, by an auditor other than who approved it, until it expires."""

    approval_id: str
    recipient: str
    reason: str
    approved_by: str
    approved_at: datetime
    expires_at: datetime


def add_export(router: APIRouter, exporting: WholeLogExport, caller: Any) -> None:
    @router.post("/export-approvals", status_code=201)
    def approve(approver: caller, wanted: ExportApprovalRequest) -> ExportApprovalView:
        """An auditor or a supervisor says to whom the whole log may be exported; an auditor who is not the same then
        exports it, once."""
        made = exporting.approve(approver, wanted.recipient.strip(), wanted.reason.strip())
        return ExportApprovalView.model_validate(made, from_attributes=True)

    @router.get("/export", response_class=StreamingResponse)
    def export(reader: caller, reason: _Reason = "", approval: _Approval = "") -> Response:
        """The whole log as JSON lines, under a checkpoint that covers all of it; `likeness audit verify` reads it."""
        return StreamingResponse(
            exporting(reader, approval, reason),
            media_type="application/x-ndjson",
            headers={"Content-Disposition": 'attachment; filename="audit-export.jsonl"'},
        )
