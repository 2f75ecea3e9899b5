"""Ends connections that do not come to a request.

A head has to be whole within HEAD_S of its first byte, the first byte has to come within HEAD_S of the connection, and
what is left of a body that was answered before it was whole (a refused token, a full house) within HEAD_S of that.
Bodies that are read have a pace of their own (http_guard.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0


class HeaderDeadlineProtocol(HttpToolsProtocol):
    """uvicorn's own, whose heads may take for ever, with a clock."""

    _head_clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._begin_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

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
