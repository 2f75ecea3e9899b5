"""From searches to figures: overall, by slice, with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.local.evaluation.metrics import (
    MIN_EXPECTED_FALSE_POSITIVES,
    Rate,
    TpirAtFpir,
    cmc,
    det_curve,
    fpir_rate,
    histogram,
    rank_rate,
    shares,
    tpir_at_fpir,
)
from services.local.evaluation.records import ProbeResult, Run
from services.local.evaluation.searching import LIST_LENGTH

RANKS = (1, 5, 20)
FPIRS = (0.1, 0.01, 0.001)
# The slices' thresholds are the whole run's at this FPIR, or at the next higher that the searches carry.
SLICE_FPIRS = (0.01, 0.1)
_QUALITY_EDGES = (30, 50, 70)
_INTER_EYE_EDGES = (16, 24, 40, 64)
_CALIBRATED_SCORES = tuple(round(0.2 + 0.02 * step, 2) for step in range(21))


@dataclass(frozen=True, slots=True)
class Slice:
    """The same figures for a part of the searches. `fpir` and `tpir` are at the whole run's threshold.

    `fpir` counts searches with their own subject left out of the list, so that every slice has some.
    """

    name: str
    searches: int
    mated: int
    failed: int
    rank_1: Rate
    rank_5: Rate
    tpir: Rate | None
    fpir: Rate | None


@dataclass(frozen=True, slots=True)
class ScoreEvidence:
    """How often somebody else reached a score, N enrolled: `fpir` is None where too few did to tell. No probability."""

    score: float
    fpir: Rate | None


@dataclass(frozen=True, slots=True)
class Curve:
    """A DET curve: FNIR within the list against FPIR, thresholds falling."""

    thresholds: list[float]
    fpir: list[float]
    fnir: list[float]


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts of scores in bins: mated searches' own subjects, and the best of anybody else."""

    edges: list[float]
    mated: list[int]
    best_other: list[int]


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything measured under one condition.

    `at_fpir` has the non-mated probes as they are; `at_fpir_leaving_one_out` has every search with its own subject
    left out of the list (N - 1 enrolled), which are more and so carry smaller FPIRs.
    """

    condition: str
    mated: int
    non_mated: int
    non_mated_leaving_one_out: int
    failures: dict[str, int]
    ranks: dict[int, Rate]
    cmc: list[float]
    at_fpir: list[TpirAtFpir]
    at_fpir_leaving_one_out: list[TpirAtFpir]
    det: Curve
    scores: Scores
    slice_threshold: float | None
    slice_fpir: float | None
    slices: dict[str, list[Slice]]
    # By quality band, and "all": FPIR at scores from 0.20 on.
    calibration: dict[str, list[ScoreEvidence]]


def summarise(run: Run) -> Summary:
    """All figures of a run."""
    mated, plain, wide = run.mated(), run.non_mated(), run.non_mated_leaving_one_out()
    left_out = [tpir_at_fpir(mated, wide, wished, LIST_LENGTH) for wished in FPIRS]
    chosen = next(
        (point for wished in SLICE_FPIRS for point in left_out if point.wished_fpir == wished and point.tpir), None
    )
    threshold = chosen.threshold if chosen else None
    return Summary(
        condition=run.condition,
        mated=len(mated),
        non_mated=len(plain),
        non_mated_leaving_one_out=len(wide),
        failures=dict(Counter(result.failure for result in run.probes if result.failure)),
        ranks={rank: rank_rate(mated, rank) for rank in RANKS},
        cmc=cmc(mated, LIST_LENGTH).tolist(),
        at_fpir=[tpir_at_fpir(mated, plain, wished, LIST_LENGTH) for wished in FPIRS],
        at_fpir_leaving_one_out=left_out,
        det=Curve(*(part.tolist() for part in det_curve(mated, wide, LIST_LENGTH))),
        scores=_scores(run),
        slice_threshold=threshold,
        slice_fpir=chosen.wished_fpir if chosen else None,
        slices=_slices(run, threshold),
        calibration=_calibration(run),
    )


def _calibration(run: Run) -> dict[str, list[ScoreEvidence]]:
    bands = _sorted({band(result.quality, _QUALITY_EDGES, "") for result in (*run.probes, *run.leave_one_out)})

    def part(name: str) -> Run:
        return run.where(lambda result: band(result.quality, _QUALITY_EDGES, "") == name)

    parts = {"all": run, **{name: part(name) for name in bands}}
    return {name: _score_evidence(searches) for name, searches in parts.items()}


def _score_evidence(run: Run) -> list[ScoreEvidence]:
    searches = run.non_mated_leaving_one_out()
    rates = shares(searches.scores[:, None] >= np.array(_CALIBRATED_SCORES)[None, :], searches.clusters)
    return [
        ScoreEvidence(score, rate if rate.hits >= MIN_EXPECTED_FALSE_POSITIVES else None)
        for score, rate in zip(_CALIBRATED_SCORES, rates, strict=True)
    ]


def _scores(run: Run) -> Scores:
    mated, edges = histogram(run.mated().scores)
    other, _ = histogram(run.non_mated_leaving_one_out().scores)
    return Scores(edges.tolist(), mated.tolist(), other.tolist())


def _slices(run: Run, threshold: float | None) -> dict[str, list[Slice]]:
    keys: dict[str, Callable[[ProbeResult], str]] = {
        "source": lambda result: result.source or "(not given)",
        "quality": lambda result: band(result.quality, _QUALITY_EDGES, ""),
        "inter-eye distance": lambda result: band(result.inter_eye_px, _INTER_EYE_EDGES, " px"),
        "faces in the picture": _face_count,
    }
    for name in sorted({name for result in run.probes for name in result.groups}):
        keys[name.removeprefix("group_")] = _group_key(name)
    return {title: _by(run, key, threshold) for title, key in keys.items()}


def _face_count(result: ProbeResult) -> str:
    if result.failure:
        return "not acquired"
    return "one" if result.faces == 1 else "several"


def _group_key(name: str) -> Callable[[ProbeResult], str]:
    return lambda result: result.groups.get(name, "(not given)")


def band(value: float | None, edges: Sequence[float], unit: str) -> str:
    """The band of a value: "under 30", "30 to 50", ..., "70 and over"; "not acquired" without a value."""
    if value is None:
        return "not acquired"
    place = int(np.searchsorted(edges, value, side="right"))
    if place == 0:
        return f"under {edges[0]:g}{unit}"
    if place == len(edges):
        return f"{edges[-1]:g}{unit} and over"
    return f"{edges[place - 1]:g} to {edges[place]:g}{unit}"


def _by(run: Run, key: Callable[[ProbeResult], str], threshold: float | None) -> list[Slice]:
    def part(name: str) -> Run:
        return run.where(lambda result: key(result) == name)

    return [_slice(name, part(name), threshold) for name in _sorted({key(result) for result in run.probes})]


def _sorted(names: set[str]) -> list[str]:
    """Bands by their numbers, other names by the alphabet, "not acquired" last."""

    def order(name: str) -> tuple[int, float, str]:
        first = next(iter(name.split(maxsplit=1)), "")
        if name == "not acquired":
            return 2, 0.0, name
        if first == "under":
            return 0, -math.inf, name
        return (0, float(first), name) if first.isdigit() else (1, 0.0, name)

    return sorted(names, key=order)


def _slice(name: str, part: Run, threshold: float | None) -> Slice:
    mated, other = part.mated(), part.non_mated_leaving_one_out()
    tpir = fpir = None
    if threshold is not None:
        tpir = rank_rate(mated, LIST_LENGTH, threshold)
        fpir = fpir_rate(other, threshold)
    return Slice(
        name=name,
        searches=len(part.probes),
        mated=len(mated),
        failed=sum(1 for result in part.probes if result.failure),
        rank_1=rank_rate(mated, 1),
        rank_5=rank_rate(mated, 5),
        tpir=tpir,
        fpir=fpir,
    )


def plain(value: object) -> object:
    """Dataclass dictionaries as JSON has them: numbers that are not finite become null, keys become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
