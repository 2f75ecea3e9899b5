"""Repeated work: an error is not the end of it, and several pieces that hang are stopped in the time of one."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from time import monotonic

import pytest

from services.shared.errors import DependencyUnavailable
from services.shared.periodic import Periodic, stop_all
from tests.support.waiting import wait_until

BOUND_S = 60.0


@pytest.fixture
def away() -> Iterator[Event]:
    """What hanging work waits for; comes back at the end."""
    event = Event()
    yield event
    event.set()


def test_work_goes_on_after_an_error() -> None:
    turns: list[int] = []

    def work() -> None:
        turns.append(1)
        raise DependencyUnavailable("away") if len(turns) == 1 else ZeroDivisionError

    periodic = Periodic("failing", work, 0.001)
    periodic.start()
    wait_until(lambda: len(turns) > 3, BOUND_S, "turns after errors")
    periodic.stop()
    done = len(turns)
    assert not Event().wait(0.05)
    assert len(turns) == done


def test_several_that_hang_are_stopped_in_the_time_of_one(away: Event) -> None:
    begun = [Event() for _ in range(8)]

    def hang(number: int) -> None:
        begun[number].set()
        away.wait(BOUND_S)

    periodics = [Periodic(f"hanging-{n}", lambda n=n: hang(n), 0.001) for n in range(8)]  # type: ignore[misc]
    for periodic in periodics:
        periodic.start()
    assert all(event.wait(BOUND_S) for event in begun)
    started_s = monotonic()
    stop_all(periodics, timeout_s=2.0)
    # One after the other they would take 16 seconds.
    assert 2.0 <= monotonic() - started_s < 14.0


def test_what_was_never_started_is_stopped_at_once() -> None:
    stop_all([Periodic("never", lambda: None, 1.0)], timeout_s=BOUND_S)
