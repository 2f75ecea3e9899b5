"""Ends connections that do not come to a request.

A head has to be whole within HEAD_S of its first byte, the first byte has to come within HEAD_S of the connection, and
what is left of a body that was answered before it was whole (a refused token, a full house) within HEAD_S of that.
Bodies that are read have a pace of their own (http_guard.py).

A head, or what comes after a body in chunks, has to be whole within MAX_HEAD_BYTES as well: the parser keeps what it
has of a header and copies it anew with every read, so that one endless header stops the whole service.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0
# Behind the first read, of at most 256 KiB; a bearer token has two.
MAX_HEAD_BYTES = 64 * 1024


class HeaderDeadlineProtocol(HttpToolsProtocol):
    """uvicorn's own, whose heads may take for ever and have any size, with a clock and a limit."""

    _head_clock: asyncio.TimerHandle | None = None
    # Whether the bytes that are being parsed came to something, and how many before them did not.
    _came_to_something = False
    _vain_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._came_to_something = False
        super().data_received(data)
        self._vain_bytes = 0 if self._came_to_something else self._vain_bytes + len(data)
        if self._vain_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        self._came_to_something = True
        self._begin_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._came_to_something = True
        self._end_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._came_to_something = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._came_to_something = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn's clock for idle connections begins anew with every byte, also with those that nobody will read.
        if self.cycle is not None and self.cycle.more_body:
            self._begin_head()

    def _begin_head(self) -> None:
        if self._head_clock is None:
            self._head_clock = self.loop.call_later(HEAD_S, self._give_up)

    def _end_head(self) -> None:
        if self._head_clock is not None:
            self._head_clock.cancel()
            self._head_clock = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
