"""What scores are worth, as an evaluation writes it and search reads it."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from services.local.evaluation.calibration import calibration_document
from services.local.evaluation.evidence import fpir_as_measured
from services.local.evaluation.records import Run
from services.search.identification.calibration import Calibration
from services.search.identification.operating_points import parse_calibrations
from services.shared.errors import InvalidRequest
from tests.unit.evaluation.builders import failed, result, run_of

FACTS = {"measured_on": "2026-11-22T10:00:00.000Z", "manifest_sha256": "ab" * 32}


def strangers(count: int, quality: float, up_to: float) -> list[float]:
    return list(np.linspace(0.1, up_to, count))


@pytest.fixture(scope="module")
def runs() -> tuple[Run, Run]:
    good = [
        result(f"p{at % 100}", is_mated=False, rank=0, score=None, other=score, quality=70)
        for at, score in enumerate(strangers(400, 70, 0.5))
    ]
    poor = [result(f"p{at}", score=0.6, other=score, quality=30) for at, score in enumerate(strangers(50, 30, 0.3))]
    few = [result(f"p{at}", score=0.6, other=0.2, quality=50) for at in range(10)]
    return run_of(*good, failed("p0")), Run("blur", (*poor, *few))


def read(runs: tuple[Run, Run]) -> Calibration:
    entry = calibration_document(runs, model_id="m", watchlist="custody", enrolled=692, facts=FACTS)
    (found,) = parse_calibrations(
        orjson.dumps({"format": 1, "operating_points": [], "calibrations": [entry]}), "evaluate"
    )
    return found


def test_every_search_is_counted_in_the_band_of_its_quality(runs: tuple[Run, Run]) -> None:
    found = read(runs)
    assert [(band.from_quality, band.searches, band.people) for band in found.bands] == [
        (0, 50, 50),
        (40, 10, 10),
        (60, 400, 100),
    ]
    row = next(row for row in found.bands[2].rows if row.score == 0.4)
    assert row.reached == sum(score >= 0.4 for score in strangers(400, 70, 0.5))
    assert row.low < row.reached / 400 < row.high


def test_too_few_people_say_nothing(runs: tuple[Run, Run]) -> None:
    assert "too few" in read(runs).at(0.4, 50, 692).says()


def test_after_the_first_score_that_nobody_reached_nothing_more_is_written(runs: tuple[Run, Run]) -> None:
    rows = read(runs).bands[0].rows
    assert [row.reached for row in rows].count(0) == 1
    assert (rows[-1].score, rows[-1].low) == (0.31, 0.0)
    assert 0.05 < rows[-1].high < 0.1, "of fifty people none: the limit is Wilson's"


def test_searches_of_one_person_widen_the_limits(runs: tuple[Run, Run]) -> None:
    scores = [0.2] * 380 + [0.45] * 20
    alone = [result(f"p{at}", other=score, quality=70) for at, score in enumerate(scores)]
    together = [result(f"p{at // 20}", other=score, quality=70) for at, score in enumerate(scores * 3)]
    widths = [
        known.high - known.low
        for known in (
            read((run_of(*alone), runs[1])).at(0.4, 70, 692),
            read((run_of(*together), runs[1])).at(0.4, 70, 692),
        )
        if known.high is not None and known.low is not None
    ]
    assert widths[1] > 2 * widths[0]


def test_another_measurement_is_another_version(runs: tuple[Run, Run]) -> None:
    assert read(runs).version == read(runs).version != read((runs[0], run_of())).version


def test_a_wish_for_a_larger_gallery_is_a_stricter_one_here() -> None:
    here = fpir_as_measured(0.01, 1000, 5000)
    assert 1 - (1 - here) ** 5 == pytest.approx(0.01)
    assert fpir_as_measured(0.01, 1000, 1000) == pytest.approx(0.01)
    with pytest.raises(InvalidRequest, match="nothing is known"):
        fpir_as_measured(0.01, 1000, 10_001)
