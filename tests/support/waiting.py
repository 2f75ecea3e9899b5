"""Waiting in tests: bounded, always, and it says what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from services.shared.errors import DependencyUnavailable

_Found = TypeVar("_Found")


def wait_until(
    holds: Callable[[], bool], timeout_s: float, what: str | Callable[[], str], interval_s: float = 0.05
) -> None:
    """Return once `holds()`; AssertionError that names `what` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what() if callable(what) else what}")
        time.sleep(interval_s)


def once_available(act: Callable[[], _Found], timeout_s: float = 180.0) -> _Found:
    """What `act` gives, which is asked for again while it says that what it needs is unavailable."""
    found: list[_Found] = []
    told = "nothing yet"

    def is_done() -> bool:
        nonlocal told
        try:
            found.append(act())
        except DependencyUnavailable as failure:
            told = failure.detail
            return False
        return True

    wait_until(is_done, timeout_s, lambda: f"what it needs to be available: {told}")
    return found[0]
