"""Turns at the processors, first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Slots:
    """A semaphore that hands over in order.

    `threading.Semaphore` lets a thread that has just finished go first again, and under load others wait a hundred
    searches long.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Lock] = deque()

    @property
    def waiting(self) -> int:
        """How many threads wait for their turn."""
        return len(self._waiting)

    @contextmanager
    def taken(self, at_most: int) -> Iterator[int]:
        """Wait for one slot, take more up to `at_most` where they are idle; how many they are."""
        held = self._take(at_most)
        try:
            yield held
        finally:
            self._give_back(held)

    def _take(self, at_most: int) -> int:
        with self._lock:
            if self._free:
                held = max(1, min(at_most, self._free))
                self._free -= held
                return held
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()
        return 1

    def _give_back(self, held: int) -> None:
        with self._lock:
            while held and self._waiting:
                self._waiting.popleft().release()
                held -= 1
            self._free += held
