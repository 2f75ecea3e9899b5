"""The API of exports."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.checks import CUSTODIAN
from services.ingest.exports.exporting import ExportCommand, ExportReferences
from services.ingest.exports.model import MAX_SUBJECTS, Export, ExportState, ExportStore
from services.shared.errors import Forbidden
from services.shared.http import bearer
from services.shared.ids import new_id
from services.shared.tokens import Principal, TokenVerifier


class ExportRequest(BaseModel):
    """Which of your force's subjects are given to whom, for which purpose, and why."""

    model_config = ConfigDict(extra="forbid")

    watchlist: str = Field(max_length=63)
    subject_ids: list[str] = Field(min_length=1, max_length=MAX_SUBJECTS)
    recipient: str = Field(
        max_length=200,
        description="The body that gets it: your own force, a party to the "
        "watchlist's agreements, or one that an administrator has named.",
    )
    purpose: str = Field(max_length=63)
    reason: str = Field(max_length=200)


class ExportView(BaseModel):
    """An export as its owner's custodians see it."""

    export_id: str
    watchlist: str
    subject_ids: list[str]
    recipient: str
    purpose: str
    reason: str
    requested_by: str
    requested_at_ms: int
    approved_by: str
    approved_at_ms: int | None
    state: ExportState
    given_at_ms: int | None
    sha256: str

    @classmethod
    def of(cls, export: Export) -> "ExportView":
        return cls(
            export_id=export.export_id,
            watchlist=export.watchlist_id,
            subject_ids=list(export.subject_ids),
            recipient=export.recipient,
            purpose=export.purpose,
            reason=export.reason,
            requested_by=export.requested_by,
            requested_at_ms=export.requested_at_ms,
            approved_by=export.approved_by,
            approved_at_ms=export.approved_at_ms,
            state=export.state,
            given_at_ms=export.given_at_ms,
            sha256=export.sha256,
        )


class ExportList(BaseModel):
    """Newest first."""

    exports: list[ExportView]


class ExportsApi:
    """The routes and what they need."""

    def __init__(
        self, exporting: ExportReferences, store: ExportStore, audit: EnrolmentAudit, verifier: TokenVerifier
    ) -> None:
        self._exporting = exporting
        self._store = store
        self._audit = audit
        self._verifier = verifier

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/exports", tags=["exports"])
        caller = Annotated[Principal, Depends(bearer(self._verifier))]
        self._add_requesting(router, caller)
        self._add_reading(router, caller)
        return router

    def _add_requesting(self, router: APIRouter, caller: Any) -> None:
        @router.post("/type-10", status_code=202)
        def request(body: ExportRequest, principal: caller) -> ExportView:
            """Ask for an export as ANSI/NIST-ITL Type-10. Another custodian has to approve it."""
            self._require(principal)
            command = ExportCommand(body.watchlist, tuple(body.subject_ids), body.recipient, body.purpose, body.reason)
            return ExportView.of(self._exporting.request(command, principal))

        @router.post("/{export_id}/approval")
        def approve(export_id: str, principal: caller) -> ExportView:
            """Approve what somebody else has asked for."""
            self._require(principal)
            return ExportView.of(self._exporting.approve(export_id, principal))

    def _add_reading(self, router: APIRouter, caller: Any) -> None:
        @router.get("")
        def list_exports(principal: caller, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> ExportList:
            """Your force's, in the watchlists of your token, newest first. Recorded."""
            self._require(principal)
            found = self._store.list(principal.force, principal.watchlists, limit)
            self._audit.record_list("export", principal, len(found))
            return ExportList(exports=[ExportView.of(each) for each in found])

        @router.get("/{export_id}")
        def get_export(export_id: str, principal: caller) -> ExportView:
            """One export."""
            self._require(principal)
            return ExportView.of(self._exporting.find(export_id, principal))

        @router.get("/{export_id}/content", response_class=Response)
        def content(export_id: str, principal: caller) -> Response:
            """The transaction of one subject, or a zip file with one of each. A disclosure, every time."""
            self._require(principal)
            given = self._exporting.give(export_id, principal)
            headers = {
                "Content-Disposition": f'attachment; filename="{given.name}"',
                "Cache-Control": "no-store",
                "X-Likeness-Records": str(given.records),
                "X-Likeness-Left-Out": ",".join(given.left_out),
            }
            return Response(given.content, media_type="application/octet-stream", headers=headers)

    def _require(self, principal: Principal) -> None:
        if CUSTODIAN not in principal.roles:
            self._audit.record_refusal(new_id(), principal, "route:exports", Forbidden.code)
            raise Forbidden(
                "This needs the role custodian.", advice="Ask an administrator for a token with the role custodian."
            )
