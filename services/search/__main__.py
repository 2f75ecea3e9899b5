"""`python -m services.search`: the search service until SIGTERM."""

from __future__ import annotations

import sys

import structlog

from services.search.bootstrap import build
from services.search.settings import SearchSettings
from services.shared.errors import PlatformError
from services.shared.memory import keep_freed_memory
from services.shared.runner import serve_http
from services.shared.telemetry import Metrics, configure_logging
from services.shared.tracing import start_tracing


def main() -> int:
    """Serve until a signal; 1 when a setting, a file or a store does not allow a start."""
    settings = SearchSettings()
    configure_logging("search", settings.log_level)
    keep_freed_memory()
    try:
        start_tracing("search", settings.tracing)
        service = build(settings, Metrics())
    except PlatformError as error:
        structlog.get_logger().critical("start_refused", detail=error.detail, advice=error.advice)
        return 1
    service.start()
    serve_http(service.app, settings.http_host, settings.http_port, on_stop=service.stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
