"""Error rates of 1:N searches after ISO/IEC 19795-1 and the NIST FRTE 1:N reports, as pure functions of scores.

N references are enrolled. A *mated* search has its subject among them, a *non-mated* one has not.

| rate | definition |
|---|---|
| FNIR(N, R, T) | share of mated searches whose subject is not on the list within rank R with a score of T or more |
| TPIR(N, R, T) | 1 - FNIR |
| FPIR(N, T) | share of non-mated searches with any candidate at T or more |
| CMC(r) | TPIR(N, r, -inf): share of mated searches whose subject is within rank r |

A probe in which no face was found is a mated search that missed, at every rank and threshold, and a non-mated search
without candidates. `score >= T` decides, as everywhere in Likeness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UNRANKED = 0  # the subject is not on the candidate list
NO_SCORE = -math.inf  # no candidate, or none of that kind
CONFIDENCE = 0.95
# An FPIR is estimated only where so many false positives are expected: with three events the 95 % interval of their
# number already reaches from one to nine.
MIN_EXPECTED_FALSE_POSITIVES = 3.0
BOOTSTRAP_ROUNDS = 1000
_SEED = 20260101
# Of fewer subjects in whose searches something happened, a bootstrap has next to no width.
_FEW_SUBJECTS = 10


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its interval. `estimate` is NaN where nothing was counted."""

    estimate: float
    low: float
    high: float
    hits: int
    trials: int


@dataclass(frozen=True, slots=True, eq=False)
class MatedSearches:
    """One entry a mated search: rank of the subject (UNRANKED when not listed), its score, and the subject's number.

    Searches of one subject are not independent; `clusters` names the subject, for the bootstrap.
    """

    ranks: Ints
    scores: Floats
    clusters: Ints

    def __post_init__(self) -> None:
        if not self.ranks.shape == self.scores.shape == self.clusters.shape or self.ranks.ndim != 1:
            raise ValueError("ranks, scores and clusters must be of one length")
        if (self.ranks < 0).any() or np.isnan(self.scores).any():
            raise ValueError("a rank is 1 or more, or UNRANKED; a score is a number")

    def __len__(self) -> int:
        return len(self.ranks)

    def is_hit(self, rank: int, threshold: float = NO_SCORE) -> npt.NDArray[np.bool_]:
        """Whether each search counts as identified within `rank` at `threshold`."""
        hit: npt.NDArray[np.bool_] = (self.ranks != UNRANKED) & (self.ranks <= rank) & (self.scores >= threshold)
        return hit

    def where(self, mask: npt.NDArray[np.bool_]) -> MatedSearches:
        return MatedSearches(self.ranks[mask], self.scores[mask], self.clusters[mask])


@dataclass(frozen=True, slots=True, eq=False)
class NonMatedSearches:
    """One entry a non-mated search: the best score on its list (NO_SCORE for an empty list), and the cluster."""

    scores: Floats
    clusters: Ints

    def __post_init__(self) -> None:
        if self.scores.shape != self.clusters.shape or self.scores.ndim != 1:
            raise ValueError("scores and clusters must be of one length")
        if np.isnan(self.scores).any():
            raise ValueError("a score is a number")

    def __len__(self) -> int:
        return len(self.scores)

    def where(self, mask: npt.NDArray[np.bool_]) -> NonMatedSearches:
        return NonMatedSearches(self.scores[mask], self.clusters[mask])


def wilson(hits: int, trials: int, confidence: float = CONFIDENCE) -> Rate:
    """A share of independent trials with Wilson's score interval (Wilson 1927; Brown, Cai and DasGupta 2001)."""
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials")
    if trials == 0:
        return Rate(math.nan, 0.0, 1.0, 0, 0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == trials else min(1.0, centre + half)
    return Rate(share, low, high, hits, trials)


def cmc(mated: MatedSearches, up_to: int) -> Floats:
    """CMC at ranks 1 to `up_to`. NaN throughout without mated searches."""
    if len(mated) == 0:
        return np.full(up_to, np.nan)
    listed = mated.ranks[(mated.ranks != UNRANKED) & (mated.ranks <= up_to)]
    return np.cumsum(np.bincount(listed - 1, minlength=up_to)[:up_to]) / len(mated)


def fnir(mated: MatedSearches, rank: int, threshold: float = NO_SCORE) -> float:
    return float(1 - mated.is_hit(rank, threshold).mean()) if len(mated) else math.nan


def fpir(non_mated: NonMatedSearches, threshold: float) -> float:
    return float((non_mated.scores >= threshold).mean()) if len(non_mated) else math.nan


def carries(trials: int, wished_fpir: float) -> bool:
    """Whether so many non-mated searches can tell anything about such an FPIR."""
    return trials * wished_fpir >= MIN_EXPECTED_FALSE_POSITIVES - 1e-9


def threshold_at_fpir(non_mated: NonMatedSearches, wished_fpir: float) -> float:
    """The lowest threshold whose measured FPIR does not exceed the wish. ValueError without searches.

    It lies just above the score that it has to exclude, so that `score >= threshold` holds for none of those.
    """
    if len(non_mated) == 0:
        raise ValueError("no non-mated search")
    allowed = math.floor(len(non_mated) * wished_fpir + 1e-9)
    if allowed >= len(non_mated):
        return NO_SCORE
    excluded = np.sort(non_mated.scores)[::-1][allowed]
    return float(np.nextafter(excluded, np.inf))


def det_curve(mated: MatedSearches, non_mated: NonMatedSearches, rank: int) -> tuple[Floats, Floats, Floats]:
    """(thresholds falling, FPIR, FNIR within `rank`): one point a threshold at which the FPIR changes."""
    scores = non_mated.scores[np.isfinite(non_mated.scores)]
    thresholds = np.unique(scores)[::-1]
    if thresholds.size:
        thresholds = np.concatenate([[np.nextafter(thresholds[0], np.inf)], thresholds])
    ordered = np.sort(non_mated.scores)
    positives = len(ordered) - np.searchsorted(ordered, thresholds, side="left")
    found = np.sort(mated.scores[mated.is_hit(rank)])
    hits = len(found) - np.searchsorted(found, thresholds, side="left")
    return thresholds, positives / max(len(non_mated), 1), 1 - hits / max(len(mated), 1)


def bootstrap(
    statistic: Callable[[Floats], float],
    clusters: Sequence[Ints],
    *,
    rounds: int = BOOTSTRAP_ROUNDS,
    confidence: float = CONFIDENCE,
    seed: int = _SEED,
) -> tuple[float, float]:
    """Percentile interval of a weighted statistic when whole clusters (subjects) are drawn with replacement.

    `clusters` has the cluster number of each observation, one array a kind of observation; numbers are shared between
    the kinds. `statistic` gets the weight (how often it was drawn) of every observation, in the same order.
    """
    every = np.concatenate([np.asarray(part) for part in clusters])
    if every.size == 0:
        return 0.0, 1.0
    names, index = np.unique(every, return_inverse=True)
    generator = np.random.default_rng(seed)
    values = np.empty(rounds)
    for turn in range(rounds):
        drawn = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
        values[turn] = statistic(drawn[index].astype(np.float64))
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def rank_rate(mated: MatedSearches, rank: int, threshold: float = NO_SCORE) -> Rate:
    """TPIR within a rank at a fixed threshold, the interval clustered by subject.

    Where every search, or none, is a hit, a bootstrap has no width; Wilson's interval over subjects is given then.
    """
    hit = mated.is_hit(rank, threshold)
    hits, trials = int(hit.sum()), len(mated)
    if trials == 0 or hits in (0, trials):
        return _over_clusters(hits, mated.clusters)

    def share(weights: Floats) -> float:
        total = float(weights.sum())
        return float(weights @ hit) / total if total else math.nan

    low, high = bootstrap(share, [mated.clusters])
    return Rate(hits / trials, low, high, hits, trials)


def fpir_rate(non_mated: NonMatedSearches, threshold: float) -> Rate:
    """FPIR at a fixed threshold, the interval as `shares` has it."""
    return shares(non_mated.scores[:, None] >= threshold, non_mated.clusters)[0]


def shares(is_hit: npt.NDArray[np.bool_], clusters: Ints) -> list[Rate]:
    """The share of searches (rows) in which something happened, for each column, the interval clustered by subject.

    Whole subjects are drawn with replacement. Never narrower than searches that are independent would have it, since
    people may be alike by chance; of few subjects Wilson's interval counts too, those in whose searches it happened of
    those there are.
    """
    searches, columns = is_hit.shape
    if searches == 0:
        return [wilson(0, 0)] * columns
    names, index = np.unique(clusters, return_inverse=True)
    by_subject = np.zeros((len(names), columns))
    np.add.at(by_subject, index, is_hit)
    low, high = _drawn_limits(by_subject, np.bincount(index, minlength=len(names)).astype(np.float64))
    rates = []
    for place, count in enumerate(is_hit.sum(axis=0)):
        hits, subjects = int(count), int((by_subject[:, place] > 0).sum())
        bounds = [wilson(hits, searches)]
        if subjects < _FEW_SUBJECTS or hits == searches:
            bounds.append(wilson(subjects, len(names)))
        lowest = min(float(low[place]), *(bound.low for bound in bounds))
        highest = max(float(high[place]), *(bound.high for bound in bounds))
        rates.append(Rate(hits / searches, lowest, highest, hits, searches))
    return rates


def _drawn_limits(hits: Floats, searches: Floats) -> tuple[Floats, Floats]:
    """95 % limits of the share of searches, a column each. `hits`: subjects by columns; `searches`: of each subject."""
    generator = np.random.default_rng(_SEED)
    subjects = len(searches)
    drawn_shares = np.empty((BOOTSTRAP_ROUNDS, hits.shape[1]))
    for turn in range(BOOTSTRAP_ROUNDS):
        drawn = np.bincount(generator.integers(0, subjects, subjects), minlength=subjects).astype(np.float64)
        drawn_shares[turn] = (drawn @ hits) / (drawn @ searches)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn_shares, [tail, 1 - tail], axis=0)
    return low, high


def _over_clusters(hits: int, clusters: Ints) -> Rate:
    trials, subjects = len(clusters), len(np.unique(clusters))
    bound = wilson(subjects if hits else 0, subjects)
    return Rate(hits / trials if trials else math.nan, bound.low, bound.high, hits, trials)


@dataclass(frozen=True, slots=True)
class TpirAtFpir:
    """TPIR at the threshold that a wished FPIR needs; `tpir.low` and `.high` include the threshold's own uncertainty.

    `fpir` is what the threshold measured, as `shares` has it. `tpir` is None where the non-mated searches do not
    carry such an FPIR.
    """

    wished_fpir: float
    threshold: float | None
    fpir: Rate | None
    tpir: Rate | None


def tpir_at_fpir(mated: MatedSearches, non_mated: NonMatedSearches, wished_fpir: float, rank: int) -> TpirAtFpir:
    """Both sides are drawn anew in each round of the bootstrap, by subject, and the threshold is set anew with them."""
    if not carries(len(non_mated), wished_fpir) or len(mated) == 0:
        return TpirAtFpir(wished_fpir, None, None, None)
    threshold = threshold_at_fpir(non_mated, wished_fpir)
    hit = mated.is_hit(rank, threshold)
    order = np.argsort(-non_mated.scores, kind="stable")
    falling, split = non_mated.scores[order], len(mated)
    listed, mated_scores = mated.is_hit(rank), mated.scores

    def statistic(weights: Floats) -> float:
        ours, theirs = weights[:split], weights[split:][order]
        total, allowed = float(ours.sum()), wished_fpir * float(theirs.sum())
        if total == 0 or allowed == 0:
            return math.nan
        over = np.cumsum(theirs) > allowed + 1e-9
        first = int(np.argmax(over)) if over.any() else len(falling)
        limit = falling[first] if first < len(falling) else -math.inf
        return float(ours @ (listed & (mated_scores > limit))) / total

    low, high = bootstrap(statistic, [mated.clusters, non_mated.clusters])
    measured = fpir_rate(non_mated, threshold)
    tpir = Rate(float(hit.mean()), low, high, int(hit.sum()), len(mated))
    if tpir.hits == tpir.trials:
        tpir = Rate(1.0, min(low, _over_clusters(tpir.hits, mated.clusters).low), 1.0, tpir.hits, tpir.trials)
    return TpirAtFpir(wished_fpir, threshold, measured, tpir)


def histogram(scores: Floats, bins: int = 60, low: float = -0.2, high: float = 1.0) -> tuple[Ints, Floats]:
    """(counts, edges); finite scores outside the range are counted in the outermost bins, absent ones nowhere."""
    finite = np.clip(scores[np.isfinite(scores)], low, high)
    counts, edges = np.histogram(finite, bins=bins, range=(low, high))
    return counts.astype(np.int64), edges
