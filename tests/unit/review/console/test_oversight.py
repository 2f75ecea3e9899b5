"""What is read of other services: a service that hangs is told of within the 3 s of fault F19."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.review.console.oversight import Oversight, OversightSettings
from services.shared.errors import DependencyUnavailable
from tests.support.promises import within

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
