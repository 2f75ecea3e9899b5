"""No date that comes deletes anything while the clock may be wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.ingest.life.clock_guard import ClockGuard, ClockMark

START = datetime(2026, 3, 1, tzinfo=UTC)


class FakeClock:
    """Both clocks, moved apart at will."""

    def __init__(self) -> None:
        self.wall = START
        self.steady_s = 100.0

    def now(self) -> datetime:
        return self.wall

    def monotonic_s(self) -> float:
        return self.steady_s

    def pass_s(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.steady_s += seconds


class FakeMarks:
    def __init__(self) -> None:
        self.mark: ClockMark | None = None

    def read(self) -> ClockMark | None:
        return self.mark

    def write(self, mark: ClockMark) -> None:
        self.mark = mark


def test_time_that_passes_is_believed() -> None:
    clock, marks = FakeClock(), FakeMarks()
    guard = ClockGuard(clock, marks)
    assert not guard.is_trusted(), "nobody has looked yet"
    for _ in range(10):
        guard.observe()
        clock.pass_s(3600)
    assert guard.is_trusted()


@pytest.mark.parametrize("hours", [1, -1, 24 * 400])
def test_a_clock_that_was_set_is_believed_once_a_person_confirms_it(hours: int) -> None:
    clock, marks = FakeClock(), FakeMarks()
    guard = ClockGuard(clock, marks)
    guard.observe()
    clock.wall += timedelta(hours=hours)
    guard.observe()
    assert not guard.is_trusted()
    clock.pass_s(10)
    assert guard.observe().distrusted_since_ms
    again = ClockGuard(clock, marks)
    again.observe()
    assert not again.is_trusted(), "a restart forgets nothing"
    again.confirm()
    assert again.is_trusted()


@pytest.mark.parametrize(("away", "is_believed"), [(timedelta(days=3), True), (timedelta(days=60), False)])
def test_a_long_absence_asks_for_a_look(away: timedelta, is_believed: bool) -> None:
    clock, marks = FakeClock(), FakeMarks()
    ClockGuard(clock, marks).observe()
    clock.wall += away
    clock.steady_s = 5.0  # another boot
    guard = ClockGuard(clock, marks)
    guard.observe()
    assert guard.is_trusted() is is_believed


def test_a_clock_behind_the_time_last_seen_is_not_believed() -> None:
    clock, marks = FakeClock(), FakeMarks()
    ClockGuard(clock, marks).observe()
    clock.wall -= timedelta(hours=1)
    guard = ClockGuard(clock, marks)
    guard.observe()
    assert not guard.is_trusted()
