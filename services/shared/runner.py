"""How every service process runs: its HTTP side in the main thread, until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from services.shared.header_deadline import HeaderDeadlineProtocol
from services.shared.tracing import stop_tracing
from services.shared.tracing_http import traced


def serve_http(app: FastAPI, host: str, port: int, *, on_stop: Callable[[], None]) -> None:
    """Serve until a signal, then call `on_stop` (stop the gRPC server, workers, close stores)."""
    config = uvicorn.Config(
        traced(app),
        host=host,
        port=port,
        http=HeaderDeadlineProtocol,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=15,
        server_header=False,
        # uvicorn believes whoever connects from this machine in X-Forwarded-For, unless it is told not to: with it an
        # address that bad sign-ins are counted by would be anybody's own choice.
        proxy_headers=False,
    )
    # uvicorn raises the signal that ended it once more, under the handlers that stood before: by default the process
    # would die of it here, before `on_stop`.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    try:
        uvicorn.Server(config).run()
    finally:
        on_stop()
        stop_tracing()
