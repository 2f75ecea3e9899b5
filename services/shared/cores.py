"""How many processors this process may use, and how much it takes on for each."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The processors that the scheduler gives this process: at least one, often fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def places(per_core: int, *, at_least: int, at_most: int) -> int:
    """How many pieces of work may be under way at once: `per_core` for each processor, within bounds.

    More of them finish no sooner, since the processors are what they wait for; each only takes longer, and so does
    the refusal of whoever comes on top.
    """
    return min(max(per_core * usable_cores(), at_least), at_most)
