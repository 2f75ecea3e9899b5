"""The error rates on a released result come from an evaluation, with searches and interval, or are said to lack."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from services.review.error_rates import ErrorRates
from services.shared.errors import ConfigurationError
from tests.unit.review.people import Unit


def rate(hits: int, trials: int) -> dict[str, float]:
    return {"estimate": hits / trials, "low": 0.1, "high": 0.9, "hits": hits, "trials": trials}


def written(folder: Path, model_id: str = "m1") -> Path:
    bands = ["under 30", "30 to 50", "50 to 70", "70 and over", "not acquired"]
    slices = [
        {"name": name, "searches": 100 + place, "rank_1": rate(90, 100), "fpir": rate(3, 60) if place else None}
        for place, name in enumerate(bands)
    ]
    document = {
        "model": {"model_id": model_id},
        "enrolled": 2075,
        "measured_on": "2026-11-20T10:00:00Z",
        "summaries": [{"slices": {"quality": slices}}],
    }
    path = folder / "evaluation.json"
    path.write_bytes(orjson.dumps(document))
    return path


@pytest.mark.parametrize(
    ("quality", "band"), [(0, "under 30"), (30, "30 to 50"), (49.9, "30 to 50"), (70, "70 and over")]
)
def test_a_quality_has_the_rates_of_its_band(tmp_path: Path, quality: float, band: str) -> None:
    found = ErrorRates.read(written(tmp_path)).at(quality, "m1")
    assert found is not None
    assert found.band == band
    assert (found.false_candidates is None) == (band == "under 30")


def test_rates_of_another_model_are_none(tmp_path: Path) -> None:
    assert ErrorRates.read(written(tmp_path)).at(60, "m2") is None


def test_a_file_that_is_something_else_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(ConfigurationError):
        ErrorRates.read(path)


def test_a_release_says_the_rates_with_their_searches_and_interval(tmp_path: Path) -> None:
    unit = Unit.open(tmp_path, rates=ErrorRates.read(written(tmp_path)))
    release = unit.released().release
    assert release is not None
    said = " ".join(release.statements)
    assert "102 searches at unified quality 50 to 70" in said
    assert "first in the list in 90 of 100 (95 per cent interval 0.100 to 0.900)" in said
    assert "threshold in 3 of 60" in said
