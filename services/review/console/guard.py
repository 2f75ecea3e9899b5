"""What stands before every page: who asks, whether the browser was sent here by us, what the browser may do."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastapi import Request, Response
from fastapi.routing import APIRoute

from services.review.console.sessions import Session, Sessions
from services.review.console.turns import session_turn
from services.review.uploads import FilmSettings, FilmUpload, read_request, spooled
from services.shared.errors import (
    CallerError,
    Forbidden,
    InvalidRequest,
    LikenessError,
    PayloadTooLarge,
    Unauthenticated,
)
from services.shared.multipart import MAX_TEXT_BYTES, Upload, read_multipart
from services.shared.settings import MAX_IMAGE_BYTES
from services.shared.tokens import Principal

# `__Host-`: the browser takes it only with Secure, without Domain and for the whole site, so no neighbour can plant it.
COOKIE = "__Host-likeness"
FILE_FIELDS = frozenset({"files", "token_file"})
# The one page that takes a film.
NEW_REQUEST_PATH = "/console/requests/new"
_MAX_FORM_BYTES = 256 * 1024
_URLENCODED = "application/x-www-form-urlencoded"
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), display-capture=(), clipboard-read=()",
}


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a posted form, text by name, and the files by field name."""

    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    film: FilmUpload | None = None

    def text(self, name: str) -> str:
        """The field's first value without the space around it, or nothing."""
        values = self.texts.get(name, ())
        return values[0].strip() if values else ""

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(self.texts.get(name, ()))

    def whole(self, name: str, fallback: int | None = None) -> int:
        """The field as a whole number. Raises InvalidRequest."""
        text = self.text(name)
        if not text and fallback is not None:
            return fallback
        if not text.lstrip("-").isdecimal() or len(text) > 12:
            raise InvalidRequest(f"“{name}” has to be a whole number.", advice="Correct the field and send it again.")
        return int(text)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a signed-in person."""

    request: Request
    session: Session
    form: Form

    @property
    def principal(self) -> Principal:
        return self.session.principal


def visit_of(request: Request) -> Visit:
    """Dependency: the visit that the guard has let in."""
    visit: Visit = request.state.visit
    return visit


ErrorPage = Callable[[Request, LikenessError], Response]


def guarded_route(sessions: Sessions, error_page: ErrorPage, films: FilmSettings) -> type[APIRoute]:
    """The class of every route behind the sign-in. For each request, in this order:

    1. the cookie names a session that stands; else the sign-in page;
    2. a request that changes something came from a page of ours (Origin) and carries the session's own token (CSRF);
    3. the route answers; what it refuses becomes a page that says why and what to do;
    4. every answer has the headers that keep it out of caches, frames and other origins.
    """

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def handle(request: Request) -> Response:
                with ExitStack() as stack:  # what an upload lies in is there until the answer is
                    try:
                        request.state.visit = await _admit(request, sessions, films, stack)
                        response = await answer(request)
                    except LikenessError as error:
                        response = error_page(request, error)
                return with_headers(response)

            return handle

    return Guarded


async def _admit(request: Request, sessions: Sessions, films: FilmSettings, stack: ExitStack) -> Visit:
    # A database is asked: not on the event loop, where everybody would wait for it.
    cookie = request.cookies.get(COOKIE, "")
    session = await session_turn(sessions.find, cookie)
    if session is None:
        ended = await session_turn(sessions.why_ended, cookie)
        request.state.unsent = await _unsent(request)
        raise Unauthenticated(
            "You are not signed in, or your session has ended.",
            advice="Sign in again.",
            context={"ended": ended.value if ended else ""},
        )
    request.state.session = session  # for the error page
    if request.method not in _UNSAFE:
        return Visit(request, session, Form())
    require_own_origin(request)
    form = await _read_any_form(request, films, stack)
    sent = request.headers.get("x-csrf-token") or form.text("csrf")
    if not hmac.compare_digest(sent.encode(), session.csrf.encode()):
        raise Forbidden(
            "The form did not come from a page of this session.",
            advice="Open the page again and send the form from there.",
            code="csrf",
        )
    return Visit(request, session, form)


async def _unsent(request: Request) -> Form:
    """What somebody wrote and sent from a page of ours after the session had ended, so that it can be given back."""
    if request.method not in _UNSAFE or request.headers.get("content-type", "") != _URLENCODED:
        return Form()
    try:
        require_own_origin(request)
        return await read_form(request)
    except CallerError:
        return Form()


def require_own_origin(request: Request) -> None:
    """The browser says that the request began on a page of this host. Raises Forbidden."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    host = request.headers.get("host", "")
    is_own = urlsplit(origin).netloc == host if origin is not None else site == "same-origin"
    if not is_own or site not in {None, "same-origin"}:
        raise Forbidden(
            "The request came from another site.", advice="Use the pages of the console itself.", code="cross_origin"
        )


async def _read_any_form(request: Request, films: FilmSettings, stack: ExitStack) -> Form:
    is_multipart = request.headers.get("content-type", "").startswith("multipart/form-data")
    if not is_multipart or request.url.path != NEW_REQUEST_PATH:
        return await read_form(request)
    file = stack.enter_context(spooled(films))
    upload, film = await read_request(request, FILE_FIELDS, films, file, max_text_bytes=MAX_TEXT_BYTES)
    return Form(upload.texts, _not_empty(upload), film)


def _not_empty(upload: Upload) -> dict[str, tuple[bytes, ...]]:
    """A browser sends an empty file where none was chosen."""
    return {name: tuple(content for content in files if content) for name, files in upload.files.items()}


async def read_form(request: Request) -> Form:
    """The posted form, of either encoding. Raises InvalidRequest, PayloadTooLarge."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        upload = await read_multipart(request, FILE_FIELDS, max_file_bytes=MAX_IMAGE_BYTES)
        return Form(upload.texts, _not_empty(upload))
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise PayloadTooLarge("The form is over 256 KiB.", advice="Shorten the remarks.")
    try:
        return Form(parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=500))
    except ValueError as error:
        raise InvalidRequest("The form cannot be read.", advice="Send it again from the page.") from error


def with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
