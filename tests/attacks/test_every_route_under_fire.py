"""Ten thousand cases that schemathesis makes from every service's own OpenAPI: whatever comes, no 5xx.

One case is one request, generated and sent. A first round goes over all routes by time; where that was not ten
thousand, further rounds with other seeds make up for it, as long as a test may take.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from tests.attacks.route_table import Route, table
from tests.attacks.scene import Scene, as_bearer
from tests.support.platform import Platform

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CASES = 10_000
# The first round; on a quiet machine it is enough for all of them.
TIME_LIMIT_S = 150.0
# Only a machine that makes fewer than thirty requests a second has not made them all by then; it says how many.
LONGEST_S = 400.0
LEAST = 20  # of each route, however late it is
# A route that answers at once makes up for those that decode a picture: as many as come in its share of the time.
MOST = 4 * CASES
SEED = 20261123
SERVICES = tuple(sorted({route.service for route in table()}))


class Tally:
    """What came back, by service and status."""

    def __init__(self) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.faults: list[str] = []

    @property
    def total(self) -> int:
        return sum(self.statuses.values())

    def count(self, route: Route, status: int, text: str) -> None:
        self.statuses[route.service, status] += 1
        if status >= 500:
            self.faults.append(f"{route}: {status} {text[:300]}")


class _Enough(Exception):
    """Ends the requests to one route."""


def fire(operation: Any, send: Callable[[Any], None], examples: int, is_enough: Callable[[], bool], turn: int) -> None:
    """Requests to one route as its schema has them, and as it does not; a few of them whatever `is_enough` says."""
    numbers = count(1)

    @seed(SEED + turn)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def run(case: Any) -> None:
        if next(numbers) > LEAST * (turn == 0) and is_enough():
            raise _Enough  # and stays so: hypothesis asks once more whether it is
        send(case)

    with suppress(_Enough):
        run()


def _is_late(until_s: float) -> bool:
    return time.monotonic() >= until_s


@pytest.fixture(scope="module")
def clients(platform: Platform) -> Iterator[dict[str, httpx.Client]]:
    opened = {
        service: httpx.Client(base_url=platform.url(service), timeout=60, trust_env=False) for service in SERVICES
    }
    yield opened
    for client in opened.values():
        client.close()


def test_no_request_is_answered_with_a_server_error(
    platform: Platform, scene: Scene, clients: dict[str, httpx.Client], capsys: pytest.CaptureFixture[str]
) -> None:
    session = requests.Session()
    session.trust_env = False
    routes = {(route.service, *route.place): route for route in table()}
    operations: list[tuple[str, Any]] = []
    for service in SERVICES:
        schema = schemathesis.openapi.from_dict(clients[service].get("/openapi.json").json())
        found: Iterable[Any] = schema.get_all_operations()
        operations += [(service, each.ok()) for each in found]
    assert len(operations) == len(routes)
    tally, started_s = Tally(), time.monotonic()
    share_s = TIME_LIMIT_S / len(operations)

    def round_over_all(turn: int, share_s: float) -> None:
        begun_s = time.monotonic()
        for number, (service, operation) in enumerate(operations, 1):
            route = routes[service, operation.method.upper(), operation.path]
            headers = as_bearer(scene.token(min(route.roles)))

            def send(case: Any, route: Route = route, headers: dict[str, str] = headers) -> None:
                answer = case.call(base_url=platform.url(route.service), session=session, headers=headers, timeout=60)
                tally.count(route, answer.status_code, answer.content.decode("utf-8", "replace"))

            # A route that is slow once does not take the others' time.
            until_s = max(begun_s + number * share_s, time.monotonic() + share_s)
            fire(operation, send, MOST // len(operations), partial(_is_late, until_s), turn)

    round_over_all(0, share_s)
    turn = 0
    while tally.total < CASES and not _is_late(started_s + LONGEST_S):
        turn += 1
        round_over_all(turn, share_s / 4)
    done = tally.total
    with capsys.disabled():
        by_status = Counter({f"{status // 100}xx": 0 for _, status in tally.statuses})
        for (_, status), count in tally.statuses.items():
            by_status[f"{status // 100}xx"] += count
        told = f"{done} cases ({CASES} wanted), {len(operations)} routes, {turn + 1} rounds"
        print(f"\n{told}, {time.monotonic() - started_s:.0f} s: {dict(by_status)}")
    assert not tally.faults, "\n".join(tally.faults[:20])
    assert done >= CASES or _is_late(started_s + LONGEST_S), "too few requests to say anything"
