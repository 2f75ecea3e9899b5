"""Rates with their denominators and intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

Z_95 = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `total`, as a share in [0, 1] with its 95 % Wilson score interval (Wilson 1927)."""

    count: int
    total: int
    share: float
    low: float
    high: float


def wilson(count: int, total: int) -> Rate | None:
    """None where nothing was counted. ValueError when the count is no part of the total."""
    if not 0 <= count <= total:
        raise ValueError(f"{count} of {total}")
    if total == 0:
        return None
    share = count / total
    spread = Z_95 * sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    centre = share + Z_95**2 / (2 * total)
    scale = 1 + Z_95**2 / total
    low, high = (centre - spread) / scale, (centre + spread) / scale
    # At the ends the interval touches them exactly; rounding must not put the share outside it.
    return Rate(count, total, share, 0.0 if count == 0 else low, 1.0 if count == total else high)
