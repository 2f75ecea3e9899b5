from __future__ import annotations

from threading import Thread

import pytest
from prometheus_client import CollectorRegistry

from services.shared.rate_limits import BURST_S, RateExceeded, RateLimits
from services.shared.settings import RateLimitSettings
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def caller(person: str = "op-1", force: str = "northshire") -> Principal:
    return Principal(person, force, frozenset(), frozenset())


def limits(clock: Hands, person: int = 60, force: int = 600, max_callers: int = 100) -> RateLimits:
    settings = RateLimitSettings(person_per_minute=person, force_per_minute=force)
    return RateLimits(settings, now_s=clock, max_callers=max_callers)


def passed(limit: RateLimits, principal: Principal, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            limit.take(principal)
        except RateExceeded:
            continue
        count += 1
    return count


def test_a_third_of_a_minute_comes_at_once_and_then_one_a_second() -> None:
    clock = Hands()
    limit = limits(clock)
    assert passed(limit, caller(), 100) == BURST_S
    clock.s += 1
    assert passed(limit, caller(), 100) == 1
    clock.s += 3600
    assert passed(limit, caller(), 100) == BURST_S


def test_who_waits_as_told_is_let_in_and_refusals_cost_nothing() -> None:
    clock = Hands()
    limit = limits(clock, person=6)
    assert passed(limit, caller(), 500) == 2
    with pytest.raises(RateExceeded) as refused:
        limit.take(caller())
    assert refused.value.scope == "person"
    clock.s += refused.value.context["retry_after_s"]
    limit.take(caller())


def test_one_person_does_not_use_up_anothers_and_many_share_their_forces() -> None:
    clock = Hands()
    limit = limits(clock, person=60, force=120)
    assert passed(limit, caller("a"), 50) == 20
    assert passed(limit, caller("b"), 50) == 20
    with pytest.raises(RateExceeded) as refused:
        limit.take(caller("c"))
    assert refused.value.scope == "force"
    assert passed(limit, caller("a", "eastmoor"), 50) == 20


def test_what_the_force_refuses_is_not_counted_against_the_person() -> None:
    clock = Hands()
    limit = limits(clock, person=30, force=30)
    assert passed(limit, caller("a"), 10) == 10
    assert passed(limit, caller("b"), 10) == 0
    clock.s += 20
    assert passed(limit, caller("b"), 10) == 10


def test_nought_switches_a_limit_off_and_one_a_minute_is_still_one() -> None:
    assert passed(limits(Hands(), person=0, force=0), caller(), 5000) == 5000
    assert passed(limits(Hands(), person=1), caller(), 5) == 1


def test_a_flood_is_reported_once_a_minute_and_counted() -> None:
    clock, registry = Hands(), CollectorRegistry()
    settings = RateLimitSettings(person_per_minute=60, force_per_minute=0)
    limit = RateLimits(settings, Metrics(registry), now_s=clock)
    reportable = 0
    for _ in range(200):
        try:
            limit.take(caller())
        except RateExceeded as error:
            reportable += error.is_reportable
    assert reportable == 1
    assert registry.get_sample_value("likeness_http_requests_total", {"force": "northshire"}) == 20
    assert registry.get_sample_value("likeness_http_rate_limited_total", {"scope": "person"}) == 180


def test_memory_is_bounded() -> None:
    limit = limits(Hands(), force=0, max_callers=10)
    for number in range(1000):
        limit.take(caller(f"op-{number}"))
    assert len(limit._due_s) == 10


def test_threads_together_get_no_more_than_one_alone() -> None:
    limit = limits(Hands(), person=300)
    counts: list[int] = []
    threads = [Thread(target=lambda: counts.append(passed(limit, caller(), 100))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counts) == 100
