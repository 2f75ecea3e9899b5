"""What a score is worth: what was measured, what is carried to other galleries, and where nothing is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.search.identification.calibration import LARGEST_FACTOR, Calibration
from services.search.identification.operating_points import OperatingPoints, parse_calibrations
from services.shared.errors import ConfigurationError
from tests.integration.search.peers import provenance

MODEL = replace(provenance("yunet+sface+p1"), recogniser="sface")
ROWS = [
    {"score": 0.3, "reached": 400, "low": 0.36, "high": 0.44},
    {"score": 0.4, "reached": 20, "low": 0.012, "high": 0.03},
    {"score": 0.45, "reached": 1, "low": 0.0, "high": 0.012},
    {"score": 0.5, "reached": 0, "low": 0.0, "high": 0.01},
]


def calibration(**changes: Any) -> dict[str, Any]:
    return {
        "model_id": MODEL.model_id,
        "watchlist": "custody",
        "version": "measured-1",
        "enrolled": 1000,
        "evidence": {"reference": "evaluation-7"},
        "bands": [
            {"from_quality": 0, "searches": 12, "people": 4, "rows": []},
            {"from_quality": 40, "searches": 1000, "people": 200, "rows": ROWS},
        ],
        **changes,
    }


def document(*calibrations: dict[str, Any]) -> str:
    return json.dumps({"format": 1, "operating_points": [], "calibrations": list(calibrations)})


def read(**changes: Any) -> Calibration:
    (found,) = parse_calibrations(document(calibration(**changes)), "points.json")
    return found


def test_at_a_measured_score_stands_what_was_measured() -> None:
    known = read().at(0.4, 70, 1000)
    assert known.fpir == pytest.approx(0.02)
    assert known.low == pytest.approx(0.012)
    assert known.high == pytest.approx(0.03)
    assert known.says() == (
        "FPIR at this score ≈ 0.02 [0.012, 0.03] for N=1,000, quality 40 and over: 20 of 1,000 searches for people not "
        "enrolled had somebody at it, N=1,000, evidence measured-1."
    )


def test_between_two_scores_the_lower_one_counts() -> None:
    assert read().at(0.4499, 70, 1000).fpir == read().at(0.4, 70, 1000).fpir


@pytest.mark.parametrize("score", [0.45, 0.49, 0.5, 0.7, 1.0])
def test_a_score_that_hardly_anybody_reached_has_an_upper_limit_and_no_estimate(score: float) -> None:
    known = read().at(score, 70, 1000)
    assert (known.fpir, known.low) == (None, 0.0)
    assert known.high == pytest.approx(0.012 if score < 0.5 else 0.01)
    assert "no estimate" in known.says()


@given(st.floats(0.3, 1.0), st.integers(1, 10_000), st.integers(1, 10_000))
def test_more_references_never_make_a_score_worth_more(score: float, few: int, many: int) -> None:
    few, many = sorted((few, many))
    less, more = read().at(score, 50, few), read().at(score, 50, many)
    assert less.high is not None
    assert more.high is not None
    assert less.high <= more.high <= 1
    if less.fpir is not None:
        assert more.fpir is not None
        assert less.fpir <= more.fpir <= more.high


def test_ten_times_as_many_references_are_ten_times_the_rare_event() -> None:
    assert read().at(0.4, 70, 10_000).fpir == pytest.approx(1 - 0.98**10)


@pytest.mark.parametrize(
    ("score", "quality", "searchable", "why"),
    [
        (0.4, 70, round(1000 * LARGEST_FACTOR) + 1, "carried to at most 10,000"),
        (0.4, 39.9, 1000, "4 people were searched at quality 0 to 40, too few"),
        (0.29, 70, 1000, "scores under 0.3 were not counted"),
    ],
)
def test_where_nothing_was_measured_nothing_is_said_but_why(
    score: float, quality: float, searchable: int, why: str
) -> None:
    known = read().at(score, quality, searchable)
    assert (known.fpir, known.low, known.high) == (None, None, None)
    assert known.says().startswith("No evidence of the FPIR at this score")
    assert why in known.says()


def test_no_words_look_like_a_percentage_or_a_confidence() -> None:
    for score in (0.2, 0.3, 0.4, 0.5):
        said = read().at(score, 70, 1000).says()
        assert "%" not in said
        assert "confiden" not in said
        assert "probab" not in said


def test_the_file_of_the_administrator_is_found_for_its_model_and_watchlist_alone(tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    path.write_text(document(calibration(), calibration(watchlist="*", version="for-any")))
    points = OperatingPoints(path)
    own, other = points.calibration(MODEL, "custody"), points.calibration(MODEL, "sex_offenders")
    assert own is not None
    assert other is not None
    assert (own.version, other.version) == ("measured-1", "for-any")
    assert points.calibration(provenance("another"), "custody") is None


@pytest.mark.parametrize(
    "wrong",
    [
        calibration(bands=[]),
        calibration(bands=[{"from_quality": 10, "searches": 1, "people": 1, "rows": []}]),
        calibration(bands=[{"from_quality": 0, "searches": 1, "people": 1, "rows": ROWS}]),
        calibration(bands=[{"from_quality": 0, "searches": 500, "people": 100, "rows": ROWS[::-1]}]),
        calibration(enrolled=0),
        calibration(evidence={}),
        calibration(confidence=0.9),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        parse_calibrations(document(wrong), "points.json")


def test_one_measurement_a_model_and_watchlist() -> None:
    with pytest.raises(ConfigurationError, match="two calibrations"):
        parse_calibrations(document(calibration(), calibration(version="measured-2")), "points.json")
