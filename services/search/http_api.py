"""The REST search API: thin, all decisions are the use cases'."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from services.search.api_models import (
    SEARCH_EXAMPLE,
    SEARCH_FORM,
    SEVERAL_FORM,
    Problem,
    SearchAnswer,
    SeveralAnswers,
    UnansweredSearch,
)
from services.search.identification.acceptance import IMAGE_FIELD
from services.search.identification.identify import Identify
from services.search.identification.several import SearchFaces
from services.search.identification.view import ViewSearch
from services.shared.errors import CallerError, Overloaded
from services.shared.http import PROBLEM, bearer, within_limits
from services.shared.multipart import Upload, read_multipart
from services.shared.problems import problem_body
from services.shared.rate_limits import RateLimits
from services.shared.tokens import Principal, TokenVerifier

API_DESCRIPTION = """
A probe is searched in lawfully held watchlists; a trained operator judges the ranked candidates. **For intelligence
only**: a candidate is not an identification. Every call needs a bearer token, every search and every look at one is
recorded before anything is given out, and where the record cannot be written the answer is 503.

Every error is `application/problem+json` with a stable `code`, a `detail` and an `advice` that says what to do.
"""

# status -> code -> (detail, advice): the problems that a search can answer with.
_PROBLEMS: Mapping[int, Mapping[str, tuple[str, str]]] = {
    401: {"unauthenticated": ("The bearer token is missing or does not verify.", "Send a current token.")},
    403: {
        "forbidden": (
            "You are not permitted to search sex_offenders.",
            "Ask for what your role, force and purpose allow, or ask your administrator for the permission.",
        )
    },
    408: {"request_timed_out": ("The body came too slowly.", "Send it again over a faster line.")},
    409: {
        "face_choice_needed": (
            "2 faces were found and none was chosen.",
            "Send it again with `face`; `faces` lists them.",
        ),
        "idempotency_key_reused": ("This Idempotency-Key was used for another request.", "Use a new key."),
        "search_running": ("The earlier request with this Idempotency-Key has no outcome yet.", "Wait a second."),
        "model_mismatch": ("The gallery holds templates of another model.", "Operators: run the gallery's model."),
    },
    413: {"payload_too_large": ("The field 'image' is over 32 MiB.", "Send a smaller file.")},
    422: {
        "invalid_request": ("Missing or invalid: case_reference, watchlists.", "Correct the named fields."),
        "image_undecodable": ("The image cannot be decoded.", "Send a whole JPEG, PNG or another accepted format."),
        "image_format_not_allowed": ("The file is no accepted image.", "Send a JPEG, PNG, WebP, BMP, TIFF or HEIC."),
        "no_face_found": ("No face was found in the image.", "Use an image in which the face is larger."),
    },
    429: {
        "too_many_requests": ("You have sent too many requests.", "Wait 3 s, then send fewer at a time."),
        "near_duplicate_probes": (
            "20 probes much like this one were searched in this case within the hour.",
            "Judge the candidates that you have.",
        ),
    },
    500: {"internal_error": ("An internal error; it has been logged.", "Tell the operators.")},
    503: {
        "audit_unavailable": ("The audit log cannot be written.", "Try again in a few seconds."),
        "incomplete_index": ("The gallery is being loaded.", "Try again in a few seconds."),
        "dependency_unavailable": ("embed does not answer.", "Try again in a few seconds."),
        "overloaded": ("Too many searches at once.", "Try again in a few seconds."),
    },
}


def _documented(*statuses: int, only: frozenset[str] = frozenset()) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of these statuses with one example a problem code."""
    documented: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        problems = {code: text for code, text in _PROBLEMS[status].items() if not only or code in only}
        documented[status] = {
            "description": ", ".join(f"`{code}`" for code in problems),
            "content": {
                PROBLEM: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code: {"value": problem_body(code, status, *text)} for code, text in problems.items()},
                }
            },
        }
    return documented


def documented_problems(
    problems: Mapping[int, tuple[str, str, str]], statuses: Iterable[int]
) -> dict[int | str, dict[str, Any]]:
    """For the API's own description: of each status an example with code, detail and advice."""
    return {status: _documented_problem(status, *problems[status]) for status in statuses}


def _documented_problem(status: int, code: str, detail: str, advice: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    example = problem_body(code, status, detail, advice)
    return {"description": f"`{code}`", "content": {PROBLEM: {"schema": schema, "example": example}}}


_ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {"description": "the candidate list", "content": {"application/json": {"example": SEARCH_EXAMPLE}}}
}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {
        "description": "`not_found`: not there, of another force, or on a watchlist that you may not see",
        "content": {
            PROBLEM: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": problem_body("not_found", 404, "There is no such search.", "Check the search_id."),
            }
        },
    },
    # Also keeps FastAPI from announcing a validation error in a form that is never sent.
    "default": {"description": "Any other problem, in the same form", "model": Problem},
}


class Slots:
    """How many searches run at once; one more is refused at once, before its body is read.

    `limits` say how often one person and one force may search, over whatever edge.
    """

    def __init__(self, count: int, limits: RateLimits | None = None) -> None:
        self._free = BoundedSemaphore(count)
        self.limits = limits

    @contextmanager
    def taken(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise Overloaded("Too many searches at once.", advice="Try again in a few seconds.")
        try:
            yield
        finally:
            self._free.release()


def upload_reader(
    caller: Callable[..., Awaitable[Principal]], slots: Slots
) -> Callable[..., AsyncIterator[Upload | CallerError]]:
    """The dependency that reads the form of a search, for a caller within its limits and while a slot is free."""

    async def upload(
        request: Request, principal: Annotated[Principal, Depends(caller)]
    ) -> AsyncIterator[Upload | CallerError]:
        """The form, or what is wrong with it: recording that blocks, which only the endpoint's thread may."""
        if slots.limits is not None:
            await within_limits(slots.limits, principal)
        with slots.taken():
            try:
                read: Upload | CallerError = await read_multipart(request, frozenset({IMAGE_FIELD}))
            except CallerError as error:
                read = error
            yield read

    return upload


def create_router(identify: Identify, view: ViewSearch, verifier: TokenVerifier, slots: Slots) -> APIRouter:
    """`POST /v1/searches` and `GET /v1/searches/{search_id}`."""
    router = APIRouter(prefix="/v1", tags=["searches"])
    caller = bearer(verifier)
    several = SearchFaces(identify)

    upload = upload_reader(caller, slots)

    @router.post(
        "/searches",
        summary="Search a probe",
        response_model=SearchAnswer,
        responses={**_ANSWERED, **_documented(401, 403, 408, 409, 413, 422, 429, 500, 503)},
        openapi_extra={"requestBody": SEARCH_FORM},
    )
    def search(
        principal: Annotated[Principal, Depends(caller)],
        read: Annotated[Upload | CallerError, Depends(upload)],
        idempotency_key: Annotated[
            str | None,
            Header(description="Send a request again with the same key and it is answered once. Yours alone."),
        ] = None,
    ) -> Response:
        """Finds the subjects most like one face of the image in the named watchlists.

        Where the image has several faces and `face` is not given, the answer is 409 and lists them.
        """
        if isinstance(read, CallerError):
            identify.reject(principal, read)
        return Response(identify(principal, read, idempotency_key), media_type="application/json")

    @router.post(
        "/searches/faces",
        summary="Search several faces of a probe",
        response_model=SeveralAnswers,
        responses=_documented(401, 403, 408, 409, 413, 422, 429, 500, 503),
        openapi_extra={"requestBody": SEVERAL_FORM},
    )
    def search_faces(
        principal: Annotated[Principal, Depends(caller)],
        read: Annotated[Upload | CallerError, Depends(upload)],
        idempotency_key: Annotated[
            str | None,
            Header(description="Send a request again with the same key and it is answered once. Yours alone."),
        ] = None,
    ) -> Response:
        """Searches each of the faces that you picked, as a search of its own: with an id, a record and a list.

        Repeat `face` for each. Who picked them is recorded.
        """
        if isinstance(read, CallerError):
            identify.reject(principal, read)
        return Response(several(principal, read, idempotency_key), media_type="application/json")

    @router.get(
        "/searches/{search_id}",
        summary="See a search again",
        response_model=SearchAnswer | UnansweredSearch,
        responses={
            **_ANSWERED,
            **_documented(401, 403),
            **_NOT_FOUND,
            **_documented(503, only=frozenset({"audit_unavailable", "dependency_unavailable"})),
        },
    )
    def see_search(principal: Annotated[Principal, Depends(caller)], search_id: str) -> Response:
        """The same answer as when it was made, for operators of the same force; looking is recorded."""
        return Response(view(principal, search_id), media_type="application/json")

    return router
