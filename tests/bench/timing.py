"""Samples of times, and how to take them so that two things can be compared on a shared machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np


@dataclass(slots=True)
class Samples:
    """Times in milliseconds."""

    values_ms: list[float] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.values_ms, percent))

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def p99(self) -> float:
        return self.percentile(99)

    def as_json(self) -> dict[str, float | int]:
        return {"count": len(self.values_ms), "p50_ms": round(self.p50, 3), "p99_ms": round(self.p99, 3)}


def timed_ms(action: Callable[[], object]) -> float:
    started = perf_counter()
    action()
    return (perf_counter() - started) * 1000


def side_by_side(actions: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3) -> dict[str, Samples]:
    """Each action once a round, in turn, so that whatever slows the machine slows them all."""
    for action in actions.values():
        for _ in range(warm_up):
            action()
    samples = {name: Samples() for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            samples[name].values_ms.append(timed_ms(action))
    return samples
