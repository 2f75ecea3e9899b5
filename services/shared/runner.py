"""How every service process runs: its HTTP side in the main thread, until SIGTERM or SIGINT."""

from __future__ import annotations

from collections.abc import Callable

import uvicorn
from fastapi import FastAPI


def serve_http(app: FastAPI, host: str, port: int, *, on_stop: Callable[[], None]) -> None:
    """Serve until a signal, then call `on_stop` (stop the gRPC server, workers, close stores)."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=15,
        server_header=False,
    )
    try:
        uvicorn.Server(config).run()
    finally:
        on_stop()
