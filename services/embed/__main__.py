"""`python -m services.embed`"""

from __future__ import annotations

import sys

import structlog

from services.embed.bootstrap import build
from services.embed.settings import EmbedSettings
from services.shared.errors import LikenessError
from services.shared.memory import keep_freed_memory
from services.shared.runner import serve_http
from services.shared.telemetry import configure_logging
from services.shared.tracing import start_tracing


def main() -> None:
    settings = EmbedSettings()
    configure_logging("embed", settings.log_level)
    keep_freed_memory()
    try:
        start_tracing("embed", settings.tracing)
        service = build(settings)
    except LikenessError as error:
        structlog.get_logger().error("cannot_start", code=error.code, detail=error.detail, advice=error.advice)
        sys.exit(1)
    serve_http(service.app, settings.http_host, settings.http_port, on_stop=service.stop)


if __name__ == "__main__":
    main()
