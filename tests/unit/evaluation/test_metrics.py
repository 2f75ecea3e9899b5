"""Error rates against cases counted by hand, and against properties that hold for any scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.local.evaluation.metrics import (
    NO_SCORE,
    UNRANKED,
    MatedSearches,
    NonMatedSearches,
    bootstrap,
    carries,
    cmc,
    det_curve,
    fnir,
    fpir,
    fpir_rate,
    histogram,
    rank_rate,
    threshold_at_fpir,
    tpir_at_fpir,
    wilson,
)

_SCORE = st.floats(-1, 1, allow_nan=False)


def mated(ranks: list[int], scores: list[float], clusters: list[int] | None = None) -> MatedSearches:
    return MatedSearches(np.array(ranks), np.array(scores, float), np.array(clusters or range(len(ranks))))


def non_mated(scores: list[float]) -> NonMatedSearches:
    return NonMatedSearches(np.array(scores, float), np.arange(len(scores)))


# Five mated searches: three found first, one third, one in which no face was found.
FIVE = mated([1, 1, 1, 3, UNRANKED], [0.9, 0.6, 0.4, 0.5, NO_SCORE])
TEN = non_mated([0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.55])


def test_cmc_counts_a_probe_without_a_face_as_missed_at_every_rank() -> None:
    np.testing.assert_allclose(cmc(FIVE, 5), [0.6, 0.6, 0.8, 0.8, 0.8])


def test_cmc_of_nothing_is_not_a_number() -> None:
    assert np.isnan(cmc(mated([], []), 3)).all()


@pytest.mark.parametrize(
    ("rank", "threshold", "expected"),
    [(1, NO_SCORE, 0.4), (3, NO_SCORE, 0.2), (3, 0.5, 0.4), (1, 0.5, 0.6), (3, 0.95, 1.0), (50, -1.0, 0.2)],
)
def test_fnir_by_hand(rank: int, threshold: float, expected: float) -> None:
    assert fnir(FIVE, rank, threshold) == pytest.approx(expected)


def test_a_score_at_the_threshold_counts() -> None:
    assert fpir(TEN, 0.55) == pytest.approx(0.1)
    assert fpir(TEN, math.nextafter(0.55, 1)) == 0.0
    assert fnir(FIVE, 1, 0.9) == pytest.approx(0.8)


def test_a_non_mated_probe_without_a_face_is_no_false_positive() -> None:
    assert fpir(non_mated([NO_SCORE, 0.5]), -1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("wished", "measured"), [(0.1, 0.1), (0.19, 0.1), (0.3, 0.3), (0.05, 0.0), (1.0, 1.0)])
def test_the_threshold_keeps_the_wished_fpir(wished: float, measured: float) -> None:
    assert fpir(TEN, threshold_at_fpir(TEN, wished)) == pytest.approx(measured)


def test_tied_scores_are_excluded_together() -> None:
    tied = non_mated([0.5, 0.5, 0.5, 0.1])
    assert fpir(tied, threshold_at_fpir(tied, 0.25)) == 0.0


def test_there_is_no_threshold_without_non_mated_searches() -> None:
    with pytest.raises(ValueError, match="non-mated"):
        threshold_at_fpir(non_mated([]), 0.1)


def test_wilson_by_published_figures() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        rate = wilson(hits, trials)
        assert (rate.low, rate.high) == pytest.approx((low, high), abs=5e-5)
    assert wilson(1, 29).high == pytest.approx(0.1718, abs=5e-5)


def test_wilson_of_nothing_says_nothing() -> None:
    rate = wilson(0, 0)
    assert math.isnan(rate.estimate)
    assert (rate.low, rate.high) == (0.0, 1.0)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_estimate(pair: tuple[int, int]) -> None:
    rate = wilson(*pair)
    assert 0 <= rate.low <= rate.estimate <= rate.high <= 1


def test_few_searches_carry_no_small_fpir() -> None:
    assert carries(100, 0.1)
    assert not carries(100, 0.01)
    assert carries(300, 0.01)
    few = tpir_at_fpir(FIVE, TEN, 0.01, 50)
    assert few.tpir is None
    assert few.threshold is None


def test_tpir_at_fpir_by_hand() -> None:
    # 3 of 10 may be at or over the threshold: it lies just above 0.40, so 0.9, 0.6 and 0.5 remain of five.
    point = tpir_at_fpir(FIVE, TEN, 0.3, 50)
    assert point.tpir is not None
    assert point.fpir is not None
    assert point.threshold == math.nextafter(0.40, 1)
    assert (point.fpir.hits, point.tpir.hits) == (3, 3)
    assert point.tpir.estimate == pytest.approx(0.6)
    assert point.tpir.low <= 0.6 <= point.tpir.high


def test_det_by_hand() -> None:
    thresholds, positives, misses = det_curve(mated([1, 1], [0.3, 0.7]), non_mated([0.2, 0.5]), 1)
    assert thresholds.tolist() == [math.nextafter(0.5, 1), 0.5, 0.2]
    assert positives.tolist() == [0.0, 0.5, 1.0]
    assert misses.tolist() == [0.5, 0.5, 0.0]


@given(st.lists(_SCORE, min_size=1, max_size=30), st.lists(_SCORE, min_size=1, max_size=30))
def test_det_is_monotone_and_agrees_with_the_rates(ours: list[float], theirs: list[float]) -> None:
    searches, others = mated([1] * len(ours), ours), non_mated(theirs)
    thresholds, positives, misses = det_curve(searches, others, 1)
    assert (np.diff(positives) > 0).all()
    assert (np.diff(misses) <= 0).all()
    for threshold, positive, miss in zip(thresholds, positives, misses, strict=True):
        assert positive == pytest.approx(fpir(others, threshold))
        assert miss == pytest.approx(fnir(searches, 1, threshold))


@given(st.lists(_SCORE, min_size=1, max_size=60), st.floats(0, 1))
def test_a_threshold_never_exceeds_the_wish(scores: list[float], wished: float) -> None:
    others = non_mated(scores)
    threshold = threshold_at_fpir(others, wished)
    assert fpir(others, threshold) <= wished + 1e-9
    # And the next lower one does exceed it.
    if math.isfinite(threshold):
        assert fpir(others, math.nextafter(threshold, -2)) > wished


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40))
def test_cmc_rises_to_the_share_that_is_listed(ranks: list[int]) -> None:
    curve = cmc(mated(ranks, [0.5] * len(ranks)), 8)
    assert (np.diff(curve) >= 0).all()
    assert curve[-1] == pytest.approx(np.mean([rank != UNRANKED for rank in ranks]))


def test_rank_rate_is_wider_when_searches_of_one_subject_fail_together() -> None:
    ranks = [1] * 80 + [UNRANKED] * 20
    scores = [0.9] * 80 + [NO_SCORE] * 20
    independent = rank_rate(mated(ranks, scores), 1)
    clustered = rank_rate(mated(ranks, scores, [index // 10 for index in range(100)]), 1)
    assert independent.estimate == clustered.estimate == pytest.approx(0.8)
    assert clustered.high - clustered.low > 1.5 * (independent.high - independent.low)


def test_an_fpir_is_wider_when_searches_of_one_subject_fail_together() -> None:
    scores = [0.6] * 20 + [0.1] * 80
    independent = fpir_rate(NonMatedSearches(np.array(scores), np.arange(100)), 0.5)
    clustered = fpir_rate(NonMatedSearches(np.array(scores), np.arange(100) // 10), 0.5)
    alone = wilson(20, 100)
    assert independent.estimate == clustered.estimate == pytest.approx(0.2)
    assert independent.low <= alone.low
    assert independent.high >= alone.high
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)


def test_of_a_threshold_that_nobody_reached_the_limit_is_of_subjects() -> None:
    rate = fpir_rate(NonMatedSearches(np.full(40, 0.1), np.arange(40) // 20), 0.5)
    assert (rate.estimate, rate.low) == (0.0, 0.0)
    assert rate.high == pytest.approx(wilson(0, 2).high)


def test_the_fpir_of_an_operating_point_is_of_subjects() -> None:
    ours = mated([1] * 5, [0.9] * 5)
    scores = np.array([0.6] * 10 + [0.1] * 90)
    point = tpir_at_fpir(ours, NonMatedSearches(scores, np.arange(100) // 10), 0.1, 50)
    assert point.fpir is not None
    assert point.fpir.estimate == pytest.approx(0.1)
    assert point.fpir.high > wilson(10, 100).high + 0.05


def test_a_perfect_score_still_has_an_interval() -> None:
    rate = rank_rate(mated([1] * 20, [0.9] * 20, [0] * 10 + [1] * 10), 1)
    assert rate.high == 1.0
    assert rate.low == pytest.approx(wilson(2, 2).low)


def test_bootstrap_agrees_with_wilson_on_independent_trials() -> None:
    hit = np.array([1.0] * 300 + [0.0] * 100)
    low, high = bootstrap(lambda weights: float(weights @ hit / weights.sum()), [np.arange(400)])
    expected = wilson(300, 400)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bootstrap_is_repeatable_and_shares_clusters_between_kinds() -> None:
    seen: list[bool] = []

    def statistic(weights: np.ndarray) -> float:
        seen.append(bool((weights[:3] == weights[3:]).all()))
        return float(weights[0])

    first = bootstrap(statistic, [np.array([5, 6, 7]), np.array([5, 6, 7])], rounds=50)
    assert first == bootstrap(statistic, [np.array([5, 6, 7]), np.array([5, 6, 7])], rounds=50)
    assert all(seen)


@settings(max_examples=20, deadline=None)
@given(st.lists(_SCORE, min_size=12, max_size=40), st.lists(_SCORE, min_size=30, max_size=60))
def test_tpir_lies_in_its_interval_or_at_its_edge(ours: list[float], theirs: list[float]) -> None:
    point = tpir_at_fpir(mated([1] * len(ours), ours), non_mated(theirs), 0.1, 50)
    assert point.tpir is not None
    assert 0 <= point.tpir.low <= point.tpir.high <= 1


def test_histogram_counts_every_finite_score_once() -> None:
    counts, edges = histogram(np.array([-1.0, 0.0, 0.5, 1.0, NO_SCORE]), bins=12)
    assert counts.sum() == 4
    assert counts[0] == 1
    assert len(edges) == 13


def test_unequal_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        MatedSearches(np.array([1]), np.array([0.1, 0.2]), np.array([0]))
    with pytest.raises(ValueError, match="number"):
        non_mated([math.nan])
