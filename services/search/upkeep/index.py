"""By which index a gallery is searched and, where that is not exact, what it was measured to miss.

Exact search has nothing to explain in court. Where an administrator chooses an approximate index, every answer says
which, with which parameters, and the share of the true best references that it was measured to find.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from services.shared.clock import rfc3339

_Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """Of the `at` best references by exact comparison, the mean share that the index returned too, over `probes`.

    A probe is a reference of the gallery turned away from itself to the cosine `probe_cosine`, in a direction drawn at
    random, as another picture of the person would be. `low` and `high` are the ends of a 95 % interval.
    """

    at: int
    recall: float
    low: float
    high: float
    probes: int
    probe_cosine: float
    references: int
    measured_at: datetime

    @classmethod
    def of(cls, at: int, shares: list[float], probe_cosine: float, references: int, now: datetime) -> IndexRecall:
        """From the share found of each probe. Raises ValueError without any."""
        if not shares:
            raise ValueError("recall needs at least one probe")
        recall = math.fsum(shares) / len(shares)
        low, high = _interval(recall, len(shares))
        return cls(at, recall, low, high, len(shares), probe_cosine, references, now)

    def document(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "recall": round(self.recall, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "probes": self.probes,
            "probe_cosine": self.probe_cosine,
            "references": self.references,
            "measured_at": rfc3339(self.measured_at),
        }


@dataclass(frozen=True, slots=True)
class GalleryIndex:
    """`kind` in the store's own word; `build` and `search` are its parameters; `recall` is None for an exact one."""

    kind: str
    is_exact: bool
    build: Mapping[str, int]
    search: Mapping[str, int]
    recall: IndexRecall | None = None

    def document(self) -> dict[str, Any]:
        """As it stands in answers and so in disclosures."""
        return {
            "kind": self.kind,
            "is_exact": self.is_exact,
            "build": dict(self.build),
            "search": dict(self.search),
            "recall": None if self.recall is None else self.recall.document(),
        }

    def statement(self) -> str:
        """What has to be said beside a candidate list; empty for an exact index."""
        if self.is_exact or self.recall is None:
            return ""
        found = self.recall
        return (
            f"The gallery was searched by an approximate index ({self.kind}): it was measured to return a share of "
            f"{found.recall:.4f} ({found.low:.4f} to {found.high:.4f}, {found.probes} probes) of the {found.at} best "
            "references; the others it misses."
        )


EXACT = GalleryIndex("exact", True, {}, {})


@runtime_checkable
class HasIndex(Protocol):
    """A gallery store whose index can be another than exact."""

    @property
    def index(self) -> GalleryIndex:
        """With the latest measurement."""
        ...

    def measure_recall(self) -> None:
        """Measure the index anew; nothing happens where it is exact or the gallery is empty.

        Raises DependencyUnavailable, GalleryIncomplete.
        """
        ...


def _interval(mean: float, probes: int) -> tuple[float, float]:
    """Wilson's. No distribution over [0, 1] with this mean spreads more than the one on 0 and 1 alone, for which it is
    made, so that for shares it is at least as wide as it has to be."""
    square = _Z * _Z / probes
    middle = (mean + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(mean * (1 - mean) / probes + square / probes / 4)
    return max(0.0, min(mean, middle - half)), min(1.0, max(mean, middle + half))  # rounding apart, it holds the mean
