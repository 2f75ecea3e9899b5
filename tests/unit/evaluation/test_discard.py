"""Error-versus-discard curves on qualities whose outcome is known."""

from __future__ import annotations

import numpy as np
import pytest

from services.local.evaluation.discard import discard_curve, quality_bands

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
