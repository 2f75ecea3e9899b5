"""Run the audit service: `python -m services.audit`."""

from __future__ import annotations

import sys

import structlog

from services.audit.bootstrap import build
from services.audit.settings import AuditSettings
from services.shared.errors import ConfigurationError
from services.shared.runner import serve_http
from services.shared.telemetry import configure_logging
from services.shared.tracing import start_tracing


def main() -> int:
    """Serve until a signal; 1 when the configuration or the log does not allow a start."""
    settings = AuditSettings()
    configure_logging("audit", settings.log_level)
    try:
        start_tracing("audit", settings.tracing)
        service = build(settings)
        service.start()
    except ConfigurationError as error:
        structlog.get_logger().critical("start_refused", detail=error.detail, advice=error.advice)
        return 1
    serve_http(service.app, settings.http_host, settings.http_port, on_stop=service.stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
