"""The difference between two systems is known better than either."""

from __future__ import annotations

import pytest

from services.local.evaluation.records import Run
from tests.accuracy.paired import paired_differences, run_from_json
from tests.unit.evaluation.builders import result, run_of


def _run(hard: int, mended: int) -> Run:
    """200 subjects, of which the `hard` first miss but for `mended` of them."""
    return run_of(
        *(result(f"m{at}", rank=2 if mended <= at < hard else 1, score=0.2 if at < hard else 0.9) for at in range(200))
    )


def test_the_difference_by_hand_and_narrower_than_the_figures() -> None:
    difference = paired_differences(_run(20, 0), _run(20, 6))[0]
    assert difference.title == "rank 1"
    assert difference.estimate == pytest.approx(0.03)
    assert 0 < difference.low < difference.estimate < difference.high < 0.07  # each alone spans about 0.08


def test_a_system_does_not_differ_from_itself() -> None:
    for difference in paired_differences(_run(20, 3), _run(20, 3)):
        assert (difference.estimate, difference.low, difference.high) == (0, 0, 0)


def test_other_probes_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same probes"):
        paired_differences(_run(1, 0), run_of(result("x")))


def test_searches_come_back_from_json_as_they_were() -> None:
    run = _run(3, 1)
    assert run_from_json(run.condition, [each.as_json() for each in run.probes]) == run
