"""The difference between two systems on the same probes, with the interval of the difference.

Two systems fail on the same hard pictures, so the difference is known much better than either figure: whole subjects
are drawn anew for both at once, and each system's threshold is set anew in each round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.local.evaluation.metrics import Floats, bootstrap
from services.local.evaluation.records import ListedSubject, ProbeResult, Run

Share = Callable[[Floats], float]


@dataclass(frozen=True, slots=True)
class Difference:
    """Second less first."""

    title: str
    estimate: float
    low: float
    high: float


def run_from_json(condition: str, results: Sequence[Mapping[str, Any]]) -> Run:
    """Searches as evaluation.json has them."""
    return Run(condition, tuple(_result(each) for each in results))


def _result(each: Mapping[str, Any]) -> ProbeResult:
    other = each["best_other"]
    return ProbeResult(**{**each, "best_other": None if other is None else ListedSubject(**other)})


def paired_differences(first: Run, second: Run) -> list[Difference]:
    """Rank 1, and TPIR at FPIR 10 % and 1 %, over the probes alone, each left out in turn as a non-mated search."""
    if [each.name for each in first.probes] != [each.name for each in second.probes]:
        raise ValueError("the two runs are not over the same probes")
    clusters = [first.mated().clusters, first.non_mated_leaving_one_out().clusters]
    split = len(clusters[0])
    everything = np.ones(sum(len(part) for part in clusters))
    found = [_difference("rank 1", _rank_1(first, split), _rank_1(second, split), clusters, everything)]
    for wished in (0.1, 0.01):
        before, after = _tpir(first, split, wished), _tpir(second, split, wished)
        found.append(_difference(f"TPIR at FPIR {wished:.0%}", before, after, clusters, everything))
    return found


def _difference(
    title: str, first: Share, second: Share, clusters: Sequence[npt.NDArray[np.int64]], everything: Floats
) -> Difference:
    def statistic(weights: Floats) -> float:
        return second(weights) - first(weights)

    return Difference(title, statistic(everything), *bootstrap(statistic, clusters))


def _rank_1(run: Run, split: int) -> Share:
    hit = run.mated().is_hit(1)
    return lambda weights: float(weights[:split] @ hit) / max(float(weights[:split].sum()), 1.0)


def _tpir(run: Run, split: int, wished: float) -> Share:
    mated, other = run.mated(), run.non_mated_leaving_one_out()
    order = np.argsort(-other.scores, kind="stable")
    falling, listed = other.scores[order], mated.is_hit(50)

    def share(weights: Floats) -> float:
        ours, theirs = weights[:split], weights[split:][order]
        over = np.cumsum(theirs) > wished * float(theirs.sum()) + 1e-9
        limit = falling[int(np.argmax(over))] if over.any() else -np.inf
        return float(ours @ (listed & (mated.scores > limit))) / max(float(ours.sum()), 1.0)

    return share
