"""What is read of other services: a service that hangs is told of within the 3 s of fault F19."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from services.review.console.oversight import Oversight, OversightSettings
from services.shared.errors import DependencyUnavailable
from tests.support.promises import within
from tests.support.waiting import wait_until

Ask = Callable[[], object]


@pytest.fixture
def hanging() -> Iterator[str]:
    """A service whose port takes connections and which never answers, like a stopped process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_f19_an_auditors_pages_say_within_three_seconds_that_audit_hangs(hanging: str) -> None:
    oversight = Oversight(OversightSettings(audit_url=hanging), "http://127.0.0.1:1")
    pages: Sequence[Ask] = (
        lambda: oversight.log_page("t", {}),
        lambda: oversight.transparency("t", ()),
        lambda: oversight.transparency_files("t", ()),
    )

    def refused(ask: Ask) -> None:
        with pytest.raises(DependencyUnavailable):
            ask()

    try:
        with ThreadPoolExecutor(len(pages)) as callers:
            within(3.0, lambda: list(callers.map(refused, pages)))
    finally:
        oversight.close()


class Audit(ThreadingHTTPServer):
    """A service that is making a report until it is let go, and that answers other questions as it is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked, self.go_on = Event(), Event()
        # Of /readyz, after the report was asked for; None: it does not answer.
        self.ready_status: int | None = 200
        self.looks = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Audit

    def do_GET(self) -> None:
        status: int | None = 200
        if self.path.startswith("/v1/"):
            self.server.asked.set()
            self.server.go_on.wait(120)
        elif self.path == "/readyz":
            self.server.looks += 1
            status = self.server.ready_status
        if status is None:
            self.server.go_on.wait(120)
            return
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def an_audit() -> Iterator[Audit]:
    with Audit() as audit:
        Thread(target=audit.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield audit
        finally:
            audit.go_on.set()
            audit.shutdown()


@pytest.mark.parametrize("status", [503, None], ids=["its log cannot be written", "it hangs"])
def test_f19_a_report_under_way_is_given_up_within_three_seconds_when_audit_cannot_work(status: int | None) -> None:
    with an_audit() as audit:
        audit.ready_status = status
        oversight = Oversight(OversightSettings(audit_url=audit.url), "http://127.0.0.1:1")

        def given_up() -> None:
            with pytest.raises(DependencyUnavailable):
                oversight.transparency_files("t", ())

        within(3.0, given_up)
        wait_until(audit.asked.is_set, 120, "the report to be asked for")
        oversight.close()


def test_a_report_that_takes_its_time_is_waited_for_while_audit_works() -> None:
    with an_audit() as audit, ThreadPoolExecutor(1) as caller:
        oversight = Oversight(OversightSettings(audit_url=audit.url), "http://127.0.0.1:1")
        report = caller.submit(oversight.transparency, "t", ())
        wait_until(lambda: audit.looks > 2 or report.done(), 120, "three looks whether it can work")
        audit.go_on.set()
        assert report.result(120) == {}
        oversight.close()
