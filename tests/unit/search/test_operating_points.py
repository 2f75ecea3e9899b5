from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.search.identification.operating_points import OperatingPoints, parse_operating_points
from services.shared.errors import ConfigurationError
from tests.integration.search.peers import provenance

SFACE = replace(provenance("yunet+sface+p1"), recogniser="sface-2021dec-int8bq")
ARCFACE = replace(provenance("yunet+arcface+p1"), recogniser="arcface-r50")


def point(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model_id": SFACE.model_id,
        "watchlist": "custody",
        "threshold": 0.41,
        "version": "custody-1",
        "evidence": {"reference": "evaluation-7", "fpir": 0.01, "fnir": 0.03, "enrolled": 107500, "searches": 2000},
    }
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def document(*points: dict[str, Any]) -> str:
    return json.dumps({"format": 1, "operating_points": list(points)})


def test_the_packaged_default_is_opencvs_and_says_that_it_has_no_evidence() -> None:
    found = OperatingPoints().find(SFACE, "custody")
    assert found is not None
    assert (found.threshold, found.is_evidenced) == (0.363, False)
    assert "neither on this gallery" in found.evidence.reference


def test_a_recogniser_without_a_point_has_none() -> None:
    assert OperatingPoints().find(ARCFACE, "custody") is None


def test_a_file_goes_before_the_default_and_a_watchlists_own_before_any(tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    path.write_text(document(point(watchlist="*", threshold=0.5), point()))
    points = OperatingPoints(path)
    custody, liberal = points.find(SFACE, "custody"), points.find(SFACE, "op_liberal")
    assert custody is not None
    assert liberal is not None
    assert (custody.threshold, liberal.threshold) == (0.41, 0.5)
    assert custody.evidence.fpir == 0.01
    other_preprocessing = points.find(replace(SFACE, model_id="yunet+sface+p2"), "custody")
    assert other_preprocessing is not None
    assert not other_preprocessing.is_evidenced


def test_a_changed_file_counts_at_once_and_a_lost_one_stops_searches(tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    path.write_text(document(point()))
    points = OperatingPoints(path)
    points.find(SFACE, "custody")
    path.write_text(document(point(threshold=0.45, version="custody-2 (raised)")))
    found = points.find(SFACE, "custody")
    assert found is not None
    assert found.version == "custody-2 (raised)"
    path.write_text("{")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"points\.json"):
            points.find(SFACE, "custody")
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        points.find(SFACE, "custody")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2, "operating_points": []}',
        document(point(threshold=36.3)),
        document(point(threshold="NaN")),
        document(point(version="")),
        document(point(evidence={})),
        document(point(evidence=None)),
        document(point(model_id=None)),
        document(point(model_id=None, recogniser="sface*")),
        document(point(recogniser="sface*")),
        document(point(colour="blue")),
        document(point(), point(threshold=0.5)),
    ],
)
def test_a_file_that_proves_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_operating_points(text, "points.json")
