"""Waiting in tests: bounded, always, and it says what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    holds: Callable[[], bool], timeout_s: float, what: str | Callable[[], str], interval_s: float = 0.05
) -> None:
    """Return once `holds()`; AssertionError that names `what` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what() if callable(what) else what}")
        time.sleep(interval_s)
