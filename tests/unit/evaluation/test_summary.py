"""From searches to figures, a threshold with its evidence, and what is written down."""

from __future__ import annotations

import json
import math

import numpy as np
import orjson
import pytest

from services.local.evaluation.evidence import operating_points_document, propose_threshold
from services.local.evaluation.records import Run
from services.local.evaluation.summary import band, plain, summarise
from services.search.identification.operating_points import parse_operating_points
from services.shared.errors import InvalidRequest
from tests.unit.evaluation.builders import failed, result, run_of

MODEL = "sface.x+yunet.y+p1"
FACTS = {"measured_on": "2026-11-22T10:00:00.000Z", "manifest_sha256": "ab" * 32}


@pytest.fixture(scope="module")
def run() -> Run:
    scores = np.linspace(0.0, 0.5, 400)
    strangers = [result(f"s{at}", is_mated=False, rank=0, score=None, other=float(s)) for at, s in enumerate(scores)]
    mated = [result(f"m{at}", score=0.3 + at / 100, other=0.1, eyes=10.0 + at) for at in range(60)]
    return run_of(*mated, failed("m0"), *strangers)


def test_counts_rates_and_failures(run: Run) -> None:
    summary = summarise(run)
    assert (summary.mated, summary.non_mated, summary.non_mated_leaving_one_out) == (61, 400, 461)
    assert summary.failures == {"no_face_found": 1}
    assert summary.ranks[1].estimate == pytest.approx(60 / 61)
    assert summary.cmc[0] == pytest.approx(60 / 61)
    at = {point.wished_fpir: point for point in summary.at_fpir_leaving_one_out}
    assert at[0.1].tpir is not None
    assert at[0.01].fpir is not None
    assert at[0.01].fpir.hits == 4
    assert at[0.001].tpir is None  # 461 searches say nothing about one in a thousand


def test_every_search_is_in_one_slice_of_each_kind(run: Run) -> None:
    summary = summarise(run)
    for parts in summary.slices.values():
        assert sum(part.searches for part in parts) == len(run.probes)
        assert sum(part.mated for part in parts) == summary.mated
    names = [part.name for part in summary.slices["inter-eye distance"]]
    assert names == ["under 16 px", "16 to 24 px", "24 to 40 px", "40 to 64 px", "64 px and over", "not acquired"]


def test_calibration_counts_who_reached_a_score_and_abstains_where_too_few_did(run: Run) -> None:
    rows = {row.score: row.fpir for row in summarise(run).calibration["all"]}
    others = run.non_mated_leaving_one_out().scores
    at = rows[0.3]
    assert at is not None
    assert (at.hits, at.trials) == (int((others >= 0.3).sum()), len(others))
    assert rows[0.5] is None, "one search of 461 reached it"
    assert rows[0.6] is None


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, "not acquired"), (15.9, "under 16"), (16.0, "16 to 24"), (24.0, "24 and over"), (99.0, "24 and over")],
)
def test_bands_include_their_lower_edge(value: float | None, name: str) -> None:
    assert band(value, (16, 24), "") == name


def test_a_proposed_threshold_keeps_its_promise_and_search_loads_it(run: Run) -> None:
    point = propose_threshold(run, 0.02)
    document = operating_points_document(point, model_id=MODEL, watchlist="custody", enrolled=692, facts=FACTS)
    (loaded,) = parse_operating_points(orjson.dumps(document), "test")
    assert (loaded.model_id, loaded.watchlist, loaded.is_evidenced) == (MODEL, "custody", True)
    assert loaded.evidence.searches == 461
    assert loaded.evidence.enrolled == 692
    reached = (run.non_mated_leaving_one_out().scores >= loaded.threshold).mean()
    assert reached <= 0.02
    assert loaded.evidence.fpir == pytest.approx(reached)
    assert point.tpir is not None
    assert loaded.evidence.fnir == pytest.approx(1 - point.tpir.estimate)


def test_another_measurement_is_another_version(run: Run) -> None:
    point = propose_threshold(run, 0.02)
    versions = {
        operating_points_document(point, model_id=model, watchlist="custody", enrolled=692, facts=FACTS)[
            "operating_points"
        ][0]["version"]
        for model in (MODEL, "another", MODEL)
    }
    assert len(versions) == 2


def test_too_little_evidence_proposes_nothing(run: Run) -> None:
    with pytest.raises(InvalidRequest, match="461 non-mated searches"):
        propose_threshold(run, 0.001)


def test_figures_are_json_without_numbers_that_json_has_not() -> None:
    empty = summarise(run_of(result("s", is_mated=False, rank=0, score=None)))
    text = json.dumps(plain({"rates": empty.ranks[1].estimate, "none": -math.inf, "kept": 0.5}))
    assert json.loads(text) == {"rates": None, "none": None, "kept": 0.5}
