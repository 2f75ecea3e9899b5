"""`python -m services.review`: the review service until SIGTERM."""

from services.review.bootstrap import build
from services.review.settings import ReviewSettings
from services.shared.runner import serve_http
from services.shared.telemetry import Metrics, configure_logging
from services.shared.tracing import start_tracing


def main() -> None:
    settings = ReviewSettings()
    configure_logging("review", settings.log_level)
    start_tracing("review", settings.tracing)
    service = build(settings, Metrics())
    service.start()
    serve_http(service.app, settings.http_host, settings.http_port, on_stop=service.stop)


if __name__ == "__main__":
    main()
