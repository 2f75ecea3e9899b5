"""The REST routes of consortium searches, for this force's operators."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from copy import deepcopy
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel, Field

from services.search.api_models import SEARCH_FORM, Problem, SearchAnswer
from services.search.http_api import Slots, documented_problems, upload_reader
from services.search.identification.requests import MAX_TEXT_CHARS
from services.search.partners.answers import PartnerPolicy, PartnerScope, PartnerStatus, PartnerThreshold
from services.search.partners.asking import AUTHORITY_FIELD, PARTNERS_FIELD, SearchConsortium
from services.search.partners.viewing import ViewConsortium
from services.shared.errors import CallerError
from services.shared.http import bearer
from services.shared.multipart import Upload
from services.shared.tokens import Principal, TokenVerifier

CONSORTIUM_FORM: dict[str, Any] = deepcopy(SEARCH_FORM)
_FORM: dict[str, Any] = CONSORTIUM_FORM["content"]["multipart/form-data"]
_FORM["schema"]["required"] += [PARTNERS_FIELD, AUTHORITY_FIELD]
_FORM["schema"]["properties"] |= {
    PARTNERS_FIELD: {
        "type": "array",
        "minItems": 1,
        "maxItems": 16,
        "items": {"type": "string"},
        "description": "Repeat the field for each partner, by the name that your administrator has configured.",
    },
    AUTHORITY_FIELD: {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_TEXT_CHARS,
        "description": "By which authority the probe is disclosed to these forces, and who gave it.",
    },
}
_FORM["encoding"][PARTNERS_FIELD] = {"style": "form", "explode": True}
_FORM["example"] = {
    **_FORM["example"],
    PARTNERS_FIELD: ["eastmoor"],
    AUTHORITY_FIELD: "OPL-2026 s.4, Det Insp 1234",
}


class SourceSearch(SearchAnswer):
    """The search at home as it stands under its own search_id; `source` is this platform's name."""

    source: str


class SourcedCandidate(BaseModel):
    """One candidate of one platform. `rank` is the place in this order, `source_rank` that in the platform's list."""

    rank: int
    source: str
    source_rank: int
    subject_id: str
    reference_id: str
    watchlist: str
    owner: str
    score: float


class ComparableLists(BaseModel):
    """Lists of one model at one operating point in one order. Scores of two entries of `lists` must not be compared."""

    sources: list[str]
    is_merged: bool
    model_id: str
    mode: str
    thresholds: list[PartnerThreshold]
    candidates: list[SourcedCandidate]


class PartnerProblem(BaseModel):
    code: str
    detail: str
    advice: str


class SentPicture(BaseModel):
    """`picture`: "as_received", or "cropped" where the probe shows more than one face."""

    picture: str
    sha256: str


class PartnerList(BaseModel):
    """What the partner's platform answered: its own search_id, policy, watchlists' version, model and list."""

    search_id: str
    searched_at: str
    model: dict[str, str]
    thresholds: list[PartnerThreshold]
    policy: PartnerPolicy
    searched: list[PartnerScope]
    searchable: int
    gallery_snapshot: str | None
    candidates: list[dict[str, Any]]
    statements: list[str]


class PartnerOutcome(BaseModel):
    """One for each partner named. Only `answered` has an `answer`; every other status has a `problem`."""

    partner: str
    status: PartnerStatus
    watchlists: list[str]
    problem: PartnerProblem | None
    sent: SentPicture | None
    answer: PartnerList | None
    took_ms: float | None


class ConsortiumAnswer(BaseModel):
    """`status` is "partial" where a partner in `missing` gave no list."""

    consortium_id: str
    status: str = Field(pattern="^(complete|partial)$")
    searched_at: str
    authority: str
    missing: list[str]
    home: SourceSearch
    partners: list[PartnerOutcome]
    lists: list[ComparableLists]
    statements: list[str]


_PROBLEMS = {
    401: ("unauthenticated", "The bearer token is missing or does not verify.", "Send a current token."),
    403: ("forbidden", "You are not permitted to search op_liberal.", "Ask your administrator for the permission."),
    404: ("not_found", "There is no such search.", "Check the consortium_id."),
    408: ("request_timed_out", "The body came too slowly.", "Send it again over a faster line."),
    409: ("face_choice_needed", "2 faces were found and none was chosen.", "Send it again with `face`."),
    413: ("payload_too_large", "The field 'image' is over 32 MiB.", "Send a smaller file."),
    422: ("invalid_request", "Unknown partner: 'southshire'.", "Name configured partners; they are: eastmoor."),
    429: ("too_many_requests", "You have sent too many requests.", "Wait 3 s, then send fewer at a time."),
    500: ("internal_error", "An internal error; it has been logged.", "Tell the operators."),
    503: ("audit_unavailable", "The audit log cannot be written.", "Try again in a few seconds."),
}


def create_consortium_router(
    search: SearchConsortium, view: ViewConsortium, verifier: TokenVerifier, slots: Slots
) -> APIRouter:
    """`POST /v1/consortium-searches` and `GET /v1/consortium-searches/{consortium_id}`."""
    router = APIRouter(prefix="/v1", tags=["consortium"])
    caller = bearer(verifier)
    upload = upload_reader(caller, slots)

    @router.post(
        "/consortium-searches",
        summary="Search a probe here and at partners",
        response_model=ConsortiumAnswer,
        responses=_responses(401, 403, 408, 409, 413, 422, 429, 500, 503),
        openapi_extra={"requestBody": CONSORTIUM_FORM},
    )
    def search_consortium(
        principal: Annotated[Principal, Depends(caller)],
        read: Annotated[Upload | CallerError, Depends(upload)],
        idempotency_key: Annotated[
            str | None,
            Header(description="Send a request again with the same key and it is answered once. Yours alone."),
        ] = None,
    ) -> Response:
        """The search at home first; then the picture goes to each partner named, whose own policy decides.

        A partner that is down, slow, refuses or answers nonsense is named with its status; the answer of this platform
        and of the other partners stands.
        """
        if isinstance(read, CallerError):
            search.reject(principal, read)
        return Response(search(principal, read, idempotency_key), media_type="application/json")

    @router.get(
        "/consortium-searches/{consortium_id}",
        summary="See a consortium search again",
        response_model=ConsortiumAnswer,
        responses=_responses(401, 403, 404, 503),
    )
    def see_consortium(principal: Annotated[Principal, Depends(caller)], consortium_id: str) -> Response:
        """The same answer as when it was made, for operators of the same force; looking is recorded."""
        return Response(view(principal, consortium_id), media_type="application/json")

    return router


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    rest: dict[int | str, dict[str, Any]] = {"default": {"description": "Any other problem", "model": Problem}}
    return rest | documented_problems(_PROBLEMS, statuses)
