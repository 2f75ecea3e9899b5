"""Error-versus-discard curves on qualities whose outcome is known."""

from __future__ import annotations

import numpy as np
import pytest

from services.local.evaluation.discard import discard_curve, discard_report, quality_bands
from services.local.evaluation.records import ListedSubject, ProbeResult, Run

MISSES = np.array([True] * 10 + [False] * 90)


def test_a_score_that_knows_everything_leaves_no_miss() -> None:
    curve = discard_curve("known", np.arange(100.0), MISSES)
    assert curve.at(0) == pytest.approx(0.1)
    assert curve.at(0.05) == pytest.approx(5 / 95)
    assert curve.at(0.1) == 0
    assert (curve.searches, curve.misses) == (100, 10)


def test_a_score_that_knows_nothing_leaves_a_flat_line() -> None:
    curve = discard_curve("nothing", np.full(100, 50.0), MISSES)
    assert curve.fnmr == pytest.approx([0.1] * len(curve.fnmr))


def test_a_score_that_is_wrong_makes_it_worse() -> None:
    assert discard_curve("wrong", -np.arange(100.0), MISSES).at(0.5) == pytest.approx(0.2)


def test_bands_hold_every_search_once() -> None:
    bands = quality_bands(np.arange(101.0), np.append(MISSES, False), (0, 10, 60, 100))
    assert [(band.low, band.missed.hits, band.missed.trials) for band in bands] == [
        (60, 0, 41),
        (10, 0, 50),
        (0, 10, 10),
    ]


def test_without_searches_there_is_no_curve() -> None:
    with pytest.raises(ValueError, match="at least one"):
        discard_curve("empty", np.empty(0), np.empty(0, np.bool_))


def _searches(count: int, *, misses: int) -> tuple[ProbeResult, ...]:
    """Mated searches of rising quality, the poorest of which miss; and in each somebody else at 0.2 to 0.4."""
    return tuple(
        ProbeResult(
            name=f"p{place}",
            identity=f"i{place}",
            source="",
            is_mated=True,
            rank=1,
            score=0.1 if place < misses else 0.8,
            best_other=ListedSubject("other", 0.2 + 0.2 * place / count, ""),
            quality=100.0 * place / count,
            inter_eye_px=40.0,
        )
        for place in range(count)
    )


def test_an_evaluation_says_what_quality_knew_at_its_own_threshold() -> None:
    report = discard_report([Run("as they are", _searches(400, misses=40))])
    assert report is not None
    assert 0.39 < report.threshold < 0.4
    assert (report.curve.misses, report.curve.at(0.1), report.not_acquired) == (40, 0.0, 0)
    assert sum(band.missed.trials for band in report.bands) == 400
    assert report.bands[-1].missed.hits == 40, "the poorest band has them all"


def test_where_next_to_nothing_missed_nothing_is_claimed() -> None:
    assert discard_report([Run("as they are", _searches(400, misses=3))]) is None
    assert discard_report([Run("as they are", _searches(50, misses=20))]) is None
