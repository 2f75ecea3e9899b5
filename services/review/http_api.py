"""The REST API for force systems: send a request, follow it, fetch its released result, report its outcome."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from services.review.api_models import (
    OUTCOME_KINDS,
    OutcomeReport,
    RequestStatus,
    ResultAnswer,
    Versioned,
    request_status,
    result_answer,
)
from services.review.callers import calling
from services.review.casework.caller import Caller
from services.review.casework.desk import Desk
from services.review.casework.forms import MAX_PICTURES, MAX_PROSE_CHARS, MAX_TEXT_CHARS
from services.review.casework.intake import SUBMITTERS
from services.review.model import CaseType, ImageNature, ProbeSource, Urgency
from services.review.uploads import FILM, FilmSettings, FilmUpload, read_request, spooled
from services.shared.multipart import Upload
from services.shared.tokens import TokenVerifier

API_DESCRIPTION = """
Requests for facial identification, and what trained people made of them. A request is a crime or occurrence number, a
purpose, a necessity and one or more pictures; its released result is a **potential name for intelligence**, or none:
never an identification. Nothing is released without two signed judgements by different trained people.

Every step is recorded in the audit log before it is done; where it cannot be recorded, the answer is 503. What is not
there and what is another force's is one and the same 404.
"""
REQUESTS_PATH = "/v1/requests"
IMAGES = "images"
_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [
                    "case_reference",
                    "offence",
                    "purpose",
                    "necessity",
                    "case_type",
                    "urgency",
                    "source",
                    "nature",
                    "face_chosen_by",
                    "watchlists",
                ],
                "additionalProperties": False,
                "properties": {
                    IMAGES: {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "description": f"1 to {MAX_PICTURES} stills, each at most 32 MiB. Repeat the field.",
                    },
                    FILM: {
                        "type": "string",
                        "format": "binary",
                        "description": "One film; with it, pictures may be left out. docs/films.md: what is read.",
                    },
                    "case_reference": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS},
                    "offence": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS},
                    "purpose": {"type": "string", "description": "A policing purpose of the watchlists asked for."},
                    "necessity": {"type": "string", "minLength": 1, "maxLength": MAX_PROSE_CHARS},
                    "case_type": {"type": "string", "enum": [kind.value for kind in CaseType]},
                    "urgency": {"type": "string", "enum": [urgency.value for urgency in Urgency]},
                    "source": {"type": "string", "enum": [source.value for source in ProbeSource]},
                    "nature": {
                        "type": "string",
                        "enum": [nature.value for nature in ImageNature],
                        "description": "Composites, look-alikes and generated images are refused.",
                    },
                    "face_chosen_by": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS},
                    "watchlists": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string"},
                        "description": "Repeat the field for each watchlist.",
                    },
                    "remarks": {"type": "string", "maxLength": MAX_PROSE_CHARS},
                },
            },
            "encoding": {"watchlists": {"style": "form", "explode": True}},
        }
    },
}
_PDF: dict[int | str, dict[str, Any]] = {200: {"content": {"application/pdf": {}}, "description": "the document"}}


def create_request_router(desk: Desk, verifier: TokenVerifier, films: FilmSettings) -> APIRouter:
    """Routes under `/v1/requests`."""
    router = APIRouter(prefix=REQUESTS_PATH, tags=["requests"])
    caller = calling(verifier)

    def submitter(who: Annotated[Caller, Depends(caller)]) -> None:
        desk.intake.admit(who, *SUBMITTERS)

    async def form(
        _admitted: Annotated[None, Depends(submitter)], request: Request
    ) -> AsyncIterator[tuple[Upload, FilmUpload | None]]:
        with spooled(films) as file:
            yield await read_request(request, frozenset({IMAGES}), films, file, max_text_bytes=4 * MAX_PROSE_CHARS)

    @router.post("", status_code=201, summary="Send a request", openapi_extra={"requestBody": _FORM})
    def send(
        who: Annotated[Caller, Depends(caller)],
        received: Annotated[tuple[Upload, FilmUpload | None], Depends(form)],
        idempotency_key: Annotated[
            str | None, Header(description="Send a request again with the same key and it is made once. Yours alone.")
        ] = None,
    ) -> RequestStatus:
        """An incomplete request is refused with every missing field named in `fields`."""
        upload, film = received
        case = desk.intake.submit(who, upload.texts, upload.files.get(IMAGES, ()), idempotency_key, film)
        return request_status(case)

    @router.get("", summary="Your requests")
    def own(who: Annotated[Caller, Depends(caller)]) -> list[dict[str, Any]]:
        """A requester's own requests; for operators and supervisors those of the force, most pressing first."""
        rows = desk.looking.queue(who, with_finished=True)
        return [
            {
                "request_id": row.request_id,
                "number": row.number,
                "state": row.state.value,
                "case_reference": row.case_reference,
                "due_at": row.due_at.isoformat(),
            }
            for row in rows
        ]

    @router.get("/{request_id}", summary="Where a request stands")
    def follow(who: Annotated[Caller, Depends(caller)], request_id: str) -> RequestStatus:
        return request_status(desk.looking.case(who, request_id).case)

    @router.post("/{request_id}/withdrawal", summary="Take a request back")
    def withdraw(who: Annotated[Caller, Depends(caller)], request_id: str, seen: Versioned) -> RequestStatus:
        """Possible until it has been searched."""
        return request_status(desk.intake.withdraw(who, request_id, seen.version))

    @router.get("/{request_id}/result", summary="The released result")
    def result(who: Annotated[Caller, Depends(caller)], request_id: str) -> ResultAnswer:
        """404 until it is released, and for every other force. Fetching it is recorded as a disclosure."""
        return result_answer(desk.looking.result(who, request_id))

    @router.get("/{request_id}/result.pdf", summary="The released result to print", responses=_PDF)
    def result_pdf(who: Annotated[Caller, Depends(caller)], request_id: str) -> Response:
        return pdf(desk.documents.result(who, request_id), "result")

    @router.post("/{request_id}/outcome", summary=f"Report an outcome: {', '.join(OUTCOME_KINDS)}")
    def outcome(who: Annotated[Caller, Depends(caller)], request_id: str, report: OutcomeReport) -> RequestStatus:
        case = desk.deciding.record_outcome(who, request_id, report.version, report.kind, report.remarks)
        return request_status(case)

    return router


def pdf(content: bytes, name: str) -> Response:
    """A document that is kept nowhere and opens in no page of ours."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.pdf"', "Content-Security-Policy": "sandbox"}
    return Response(content, media_type="application/pdf", headers=headers)
