"""Run the ingest service: `python -m services.ingest`."""

from __future__ import annotations

import sys

import structlog

from services.ingest.bootstrap import build
from services.ingest.settings import IngestSettings
from services.shared.errors import PlatformError
from services.shared.memory import keep_freed_memory
from services.shared.runner import serve_http
from services.shared.telemetry import configure_logging
from services.shared.tracing import start_tracing


def main() -> int:
    """Serve until a signal; 1 when a setting, a file or the ledger does not allow a start."""
    settings = IngestSettings()
    configure_logging("ingest", settings.log_level)
    keep_freed_memory()
    try:
        start_tracing("ingest", settings.tracing)
        service = build(settings)
        service.start()
    except PlatformError as error:
        structlog.get_logger().critical("start_refused", detail=error.detail, advice=error.advice)
        return 1
    serve_http(service.app, settings.http_host, settings.http_port, on_stop=service.stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
