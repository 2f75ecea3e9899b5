"""Whether the wall clock may be believed. Nothing is deleted because a day has come while it may not."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import structlog

from services.shared.clock import Clock

# Beyond this the wall clock did something that the monotonic clock did not: it was set.
MAX_STEP_S = 60.0
# A platform that was off for longer is looked at by a person before retention deletes anything.
MAX_ABSENCE_S = 14 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ClockMark:
    """The wall clock as it was last seen; `distrusted_since_ms` is 0 while it is believed."""

    wall_ms: int
    distrusted_since_ms: int = 0
    why: str = ""


class ClockMarks(Protocol):
    """Remembers the mark over restarts."""

    def read(self) -> ClockMark | None: ...

    def write(self, mark: ClockMark) -> None: ...


class ClockGuard:
    """Compares the wall clock with the monotonic one, and over a restart with the time last seen.

    A jump in either direction, or a wall clock that went back or far ahead while nobody ran, withdraws trust until a
    person confirms the time with `confirm`. Erasure on command does not ask: it is due by command, not by date.
    """

    def __init__(self, clock: Clock, marks: ClockMarks) -> None:
        self._clock = clock
        self._marks = marks
        self._mark = marks.read()
        self._last: tuple[float, float] | None = None  # wall and monotonic, in seconds
        self._lock = Lock()  # several loops look at the same time, and none may overwrite what another saw

    def observe(self) -> ClockMark:
        """Look at both clocks; to be called at least every minute, and before what cannot be undone is done because a
        day has come. Raises DependencyUnavailable."""
        with self._lock:
            return self._observed()

    def _observed(self) -> ClockMark:
        wall_s, steady_s = self._clock.now().timestamp(), self._clock.monotonic_s()
        why = self._suspicion(wall_s, steady_s)
        self._last = (wall_s, steady_s)
        known = self._mark
        since_ms, reason = (known.distrusted_since_ms, known.why) if known is not None else (0, "")
        if why and not since_ms:
            since_ms, reason = int(wall_s * 1000), why
            structlog.get_logger().error("clock_distrusted", why=why)
        self._mark = ClockMark(int(wall_s * 1000), since_ms, reason)
        self._marks.write(self._mark)
        return self._mark

    def is_trusted(self) -> bool:
        """Whether a date that has come may be acted on."""
        return self._last is not None and self._mark is not None and not self._mark.distrusted_since_ms

    def confirm(self) -> None:
        """A person has looked: the time is right now."""
        with self._lock:
            wall_s = self._clock.now().timestamp()
            self._last = (wall_s, self._clock.monotonic_s())
            self._mark = ClockMark(int(wall_s * 1000))
            self._marks.write(self._mark)

    def _suspicion(self, wall_s: float, steady_s: float) -> str:
        if self._last is not None:
            step_s = (wall_s - self._last[0]) - (steady_s - self._last[1])
            return f"the clock was set by {step_s:+.0f} s" if abs(step_s) > MAX_STEP_S else ""
        if self._mark is None:
            return ""
        away_s = wall_s - self._mark.wall_ms / 1000
        if away_s < -MAX_STEP_S:
            return f"the clock stands {-away_s:.0f} s before the time last seen"
        return f"the platform was away for {away_s / 86400:.0f} days" if away_s > MAX_ABSENCE_S else ""
