"""The routes of disclosure: the bundle of a search, and the search run again."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.search.disclosure.approvals import ApproveDisclosure
from services.search.disclosure.bundle import DiscloseSearch
from services.search.disclosure.replay import ReplaySearch
from services.search.http_api import Slots, documented_problems
from services.shared.http import bearer
from services.shared.tokens import Principal, TokenVerifier

_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
_Reason = Annotated[
    str, Query(min_length=3, max_length=200, pattern=_PRINTABLE, description="Why; it stands in the log.")
]

_Approval = Annotated[str, Query(max_length=64, description="The approval of a supervisor other than you.")]


_EXAMPLES = {
    401: ("unauthenticated", "The bearer token is missing or does not verify.", "Send a current token."),
    403: ("forbidden", "Only operator and supervisor disclose searches.", "Ask your administrator."),
    404: ("not_found", "There is no such search.", "Check the search_id."),
    409: ("search_without_answer", "The search has no answer that could be disclosed.", "Export the log instead."),
    503: ("audit_unavailable", "The audit log cannot be written.", "Try again in a few seconds."),
}


class Bundle(BaseModel):
    """A bundle of the form `likeness.disclosure.v1` (docs/disclosure.md); `likeness disclosure verify` reads it."""

    format: str
    search_id: str
    made_at: str
    made_by: dict[str, str]
    reason: str
    approval: dict[str, str]
    watermark: str = Field(description="Names the one recipient.")
    original_sha256: str
    enhancement: list[Any]
    probe: dict[str, str]
    answer: str = Field(description="The answer's JSON as text, byte for byte as its digest in the log says.")
    adjudications: list[dict[str, Any]]
    audit: dict[str, Any]


class ApprovalRequest(BaseModel):
    """To whom a search is to be disclosed, and why."""

    model_config = ConfigDict(extra="forbid")

    recipient: str = Field(min_length=3, max_length=200, pattern=_PRINTABLE, examples=["Northshire Crown Court"])
    reason: str = Field(min_length=3, max_length=200, pattern=_PRINTABLE)


class ApprovalView(BaseModel):
    """It serves one disclosure, by somebody else, until it expires."""

    approval_id: str
    search_id: str
    recipient: str
    reason: str
    approved_by: str
    approved_at: datetime
    expires_at: datetime


class Replay(BaseModel):
    """The list of then from the gallery of now: references enrolled since are left out, candidates gone are named."""

    search_id: str
    replayed_at: str
    model: dict[str, Any]
    gallery_snapshot: dict[str, Any] | None
    searched: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    newcomers: int
    gone: list[dict[str, Any]]


def create_disclosure_router(
    approve: ApproveDisclosure, disclose: DiscloseSearch, replay: ReplaySearch, verifier: TokenVerifier, slots: Slots
) -> APIRouter:
    """Under `/v1/searches/{search_id}`: `disclosure-approvals`, `disclosure`, `replay`."""
    router = APIRouter(prefix="/v1", tags=["disclosure"])
    caller = Annotated[Principal, Depends(bearer(verifier))]

    @router.post(
        "/searches/{search_id}/disclosure-approvals",
        status_code=201,
        summary="Approve a disclosure",
        responses=documented_problems(_EXAMPLES, (401, 403, 404, 409, 503)),
    )
    def post_approval(principal: caller, search_id: str, wanted: ApprovalRequest) -> ApprovalView:
        """A supervisor says to whom a search may be disclosed; somebody else then fetches the bundle, once."""
        made = approve(principal, search_id, wanted.recipient.strip(), wanted.reason.strip())
        return ApprovalView.model_validate(made, from_attributes=True)

    @router.get(
        "/searches/{search_id}/disclosure",
        summary="Disclose a search",
        response_model=Bundle,
        responses=documented_problems(_EXAMPLES, (401, 403, 404, 409, 503)),
    )
    def get_disclosure(principal: caller, search_id: str, reason: _Reason, approval: _Approval = "") -> Response:
        """Everything about one search that a check without the platform needs; recorded as a disclosure."""
        return Response(disclose(principal, search_id, reason, approval), media_type="application/json")

    @router.post(
        "/searches/{search_id}/replay",
        summary="Run a search again",
        response_model=Replay,
        responses=documented_problems(_EXAMPLES, (401, 403, 404, 409, 503)),
    )
    def post_replay(principal: caller, search_id: str, reason: _Reason) -> Response:
        """The sealed probe searched again as it was then; needs the permission that a search needs today."""
        with slots.taken():
            return Response(replay(principal, search_id, reason), media_type="application/json")

    return router
