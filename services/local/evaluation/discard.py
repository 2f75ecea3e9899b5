"""Error versus discard: does the quality score know beforehand which searches will miss?

The searches of lowest quality are left out, share by share, and the share that misses among the rest is drawn at a
fixed threshold (Grother and Tabassi 2007; ISO/IEC 29794-1). A quality score that knows nothing leaves a flat line; one
that knows everything falls to zero as soon as as many are left out as miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.local.evaluation.metrics import Rate, threshold_at_fpir, wilson
from services.local.evaluation.plots import BLUE, FAINT, INK, ORANGE, figure
from services.local.evaluation.records import Run

Floats = npt.NDArray[np.float64]
SHARES = tuple(round(0.01 * step, 2) for step in range(51))
WISHED_FPIR = 0.01
_FEWEST_MISSES = 10


@dataclass(frozen=True, slots=True)
class DiscardCurve:
    """FNMR of what is left once the share of lowest quality is left out, for each of `shares`."""

    title: str
    shares: tuple[float, ...]
    fnmr: tuple[float, ...]
    searches: int
    misses: int

    def at(self, share: float) -> float:
        return float(np.interp(share, self.shares, self.fnmr))


def discard_curve(title: str, quality: Floats, is_miss: npt.NDArray[np.bool_]) -> DiscardCurve:
    """Searches of equal quality are left out together with their mean share of misses. ValueError without searches."""
    if len(quality) == 0 or len(quality) != len(is_miss):
        raise ValueError("as many qualities as searches, and at least one")
    levels, place = np.unique(quality, return_inverse=True)
    mean = np.bincount(place, is_miss, len(levels)) / np.bincount(place, minlength=len(levels))
    kept = mean[np.sort(place)]
    first = [min(int(share * len(kept) + 1e-9), len(kept) - 1) for share in SHARES]
    return DiscardCurve(
        title, SHARES, tuple(float(kept[at:].mean()) for at in first), len(quality), int(np.count_nonzero(is_miss))
    )


@dataclass(frozen=True, slots=True)
class QualityBand:
    """Mated searches whose quality lies from `low` to below `high`, and how many of them missed."""

    low: float
    high: float
    missed: Rate


def quality_bands(quality: Floats, is_miss: npt.NDArray[np.bool_], edges: Sequence[float]) -> list[QualityBand]:
    """Bands between neighbouring edges, best first; those without a search are left out."""
    bands = []
    for low, high in pairwise(edges):
        inside = (quality >= low) & ((quality < high) | (high >= 100))
        if inside.any():
            bands.append(QualityBand(low, high, wilson(int(is_miss[inside].sum()), int(inside.sum()))))
    return bands[::-1]


@dataclass(frozen=True, slots=True)
class DiscardReport:
    """What quality knew in one evaluation, all its conditions together, at the threshold of one FPIR."""

    threshold: float
    curve: DiscardCurve
    bands: tuple[QualityBand, ...]
    not_acquired: int


def discard_report(runs: Sequence[Run], edges: Sequence[float] = (0, 30, 40, 50, 60, 70, 100)) -> DiscardReport | None:
    """Of the mated searches of every run; the threshold is that of the first. None where too few missed to tell."""
    others = runs[0].non_mated_leaving_one_out()
    if len(others) * WISHED_FPIR < 3:
        return None
    threshold = threshold_at_fpir(others, WISHED_FPIR)
    mated = [result for run in runs for result in run.probes if result.is_mated]
    acquired = [result for result in mated if result.quality is not None]
    if not acquired:
        return None
    quality = np.array([result.quality for result in acquired], np.float64)
    is_miss = np.array([result.score is None or result.score < threshold for result in acquired])
    if is_miss.sum() < _FEWEST_MISSES:
        return None
    curve = discard_curve("unified quality", quality, is_miss)
    bands = quality_bands(quality, is_miss, edges)
    return DiscardReport(threshold, curve, tuple(bands), len(mated) - len(acquired))


def draw_discard(curves: Sequence[DiscardCurve], path: Path) -> Path:
    """The first curve in full colour, an ideal one for comparison, the others fainter."""
    main = curves[0]
    with figure(path) as (_, axes):
        shares = np.array(main.shares)
        start = main.misses / main.searches
        ideal = np.clip((start - shares) / (1 - shares), 0, None)
        axes.plot(shares, ideal, color=FAINT, lw=1.5, ls="--", label="a score that knows everything")
        colours: list[Any] = [BLUE, ORANGE, INK, "#6b9e3f", "#8e6bb0"]
        for curve, colour in zip(curves, colours, strict=False):
            axes.plot(curve.shares, curve.fnmr, color=colour, lw=2.4 if curve is main else 1.4, label=curve.title)
        axes.axhline(start, color=FAINT, lw=1)
        axes.set_xlim(0, 0.5)
        axes.set_ylim(0, None)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _place: f"{100 * value:g} %")
        axes.set_xlabel("searches of lowest quality left out")
        axes.set_ylabel("FNMR of the rest")
        axes.set_title(f"Error versus discard ({main.searches} mated searches, {main.misses} missed)")
        axes.legend(fontsize=8)
    return path
