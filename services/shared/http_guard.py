"""What stands before every HTTP route: a limit and a pace for bodies, and headers on every answer. Pure ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.shared.errors import LikenessError, PayloadTooLarge, RequestTimedOut
from services.shared.problems import SECURITY_HEADERS, problem_response

_HEADERS = tuple((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
# A body has this long, and longer by a second for every 16 KiB that came: slower than the slowest line in use.
BODY_GRACE_S = 10.0
BODY_PACE_BYTES_S = 16 * 1024


class HttpGuard:
    """Refuses bodies over `max_body_bytes` (413) and bodies that trickle (408) without keeping what came of them.

    The check is made when the route first asks for the body, so that the route's token check comes before it. However
    the route reads its body, the answer is the guard's, and the connection is closed rather than drained.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, larger: Mapping[str, int] | None = None) -> None:
        """`larger`: limits of single paths that take more."""
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._larger = dict(larger or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope.get("path", ""), self._max_body_bytes)
        exchange = _Exchange(scope, receive, send, limit)
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._received_bytes = 0
        self._started_s: float | None = None
        self._is_body_complete = False
        self._refusal: LikenessError | None = None
        self._is_answer_replaced = False

    async def receive(self) -> Message:
        if self._is_body_complete:
            return await self._receive()  # waits for the client to go away
        if self._refusal is not None:
            raise self._refusal
        if self._started_s is None:
            self._started_s = monotonic()
            self._check_size(_content_length(self._scope))
        message = await self._receive_in_time(self._started_s)
        self._received_bytes += len(message.get("body", b""))
        self._check_size(self._received_bytes)
        self._is_body_complete = not message.get("more_body", False)
        return message

    async def _receive_in_time(self, started_s: float) -> Message:
        allowed_s = BODY_GRACE_S + self._received_bytes / BODY_PACE_BYTES_S
        try:
            async with asyncio.timeout(started_s + allowed_s - monotonic()):
                return await self._receive()
        except TimeoutError as error:
            self._refusal = RequestTimedOut("The body came too slowly.", advice="Send it again over a faster line.")
            raise self._refusal from error

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_body_bytes:
            limit = self._max_body_bytes // (1024 * 1024)
            self._refusal = PayloadTooLarge(
                f"The request is over the limit of {limit} MiB.",
                advice="Send less in one request; /docs has the limits.",
            )
            raise self._refusal

    async def send(self, message: Message) -> None:
        if self._is_answer_replaced:
            return
        if message["type"] == "http.response.start":
            if self._refusal is not None and message["status"] != self._refusal.http_status:
                # A framework's own body parser has turned the refusal into something else.
                self._is_answer_replaced = True
                await problem_response(self._refusal)(self._scope, self._receive, self._send_with_headers)
                return
            await self._send_with_headers(message)
            return
        await self._send(message)

    async def _send_with_headers(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers.extend(pair for pair in _HEADERS if pair[0] not in present)
            if self._refusal is not None:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
