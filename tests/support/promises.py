"""Promises about time, held on machines that do other work."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

_Found = TypeVar("_Found")


def within(
    promised_s: float, act: Callable[[], _Found], tries: int = 5, before: Callable[[], object] = lambda: None
) -> _Found:
    """What `act` gives, which may be asked for again, in the time that was promised.

    A machine that does other work is late now and then; what breaks its promise is late every time. So a late answer
    is asked for again, and only when all tries were late the promise is broken. `before` each try comes what it needs
    and does not promise.
    """
    late: list[float] = []
    for _ in range(tries):
        before()
        started = monotonic()
        found = act()
        taken_s = monotonic() - started
        if taken_s < promised_s:
            return found
        late.append(round(taken_s, 2))
    raise AssertionError(f"promised within {promised_s:g} s, and took {late} s")
