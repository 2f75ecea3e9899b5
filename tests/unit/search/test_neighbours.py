"""Neighbours for a custodian: within one owner and watchlist, as bands, by points that say where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.rpc.clients import GALLERY_DEADLINE_S
from services.rpc.v1 import ingest_pb2, search_pb2
from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.gallery.scan import ExactScan
from services.search.neighbours.finding import (
    MAX_NEIGHBOURS,
    MAX_PROBES,
    PATIENCE_IN_ALL_S,
    PATIENCE_S,
    FindNeighbours,
    NeighbourQuery,
    queries_of,
    response_of,
)
from services.search.neighbours.points import FlagPointsFile, parse_flag_points
from services.search.ports import GalleryHit, ReferenceRecord, SearchScope
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.biometric import ModelProvenance, Vector
from services.shared.clock import SystemClock
from services.shared.errors import ConfigurationError, InvalidRequest, ModelMismatch
from services.shared.telemetry import Metrics
from tests.unit.search.fakes import ManualClock

MODEL = ModelProvenance("m1", "det", "d" * 64, "rec-1", "e" * 64, "Apache-2.0", 4, "p1", "rt 1", "CPU")
POINTS = {
    "model_id": "m1",
    "same_person": 0.5,
    "strong": 0.7,
    "near_identical": 0.95,
    "duplicate": 0.95,
    "unlike": 0.2,
    "version": "v1",
    "evidence": {"reference": "a test"},
}


def at(cosine: float) -> Vector:
    """A unit vector at that cosine from (1, 0, 0, 0)."""
    return np.array([cosine, np.sqrt(1 - cosine**2), 0, 0], np.float32)


class Models:
    def describe_model(self) -> ModelProvenance:
        return MODEL


class Ledger:
    def read_references(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        return iter(())

    def count(self) -> ingest_pb2.LedgerCounts:
        return ingest_pb2.LedgerCounts()


@pytest.fixture
def store() -> Iterator[ExactGalleryStore]:
    gallery = ExactGalleryStore()
    yield gallery
    gallery.close()


@pytest.fixture
def finding(store: ExactGalleryStore, tmp_path: Path) -> FindNeighbours:
    keeper = GalleryKeeper(store, Models(), Ledger(), Metrics(CollectorRegistry()))
    keeper.tend()
    path = tmp_path / "points.json"
    path.write_text(json.dumps({"format": 1, "flag_points": [POINTS]}), "utf-8")
    return FindNeighbours(keeper, FlagPointsFile(path), SystemClock(), lambda at_most_s: True)


class Turn:
    """Searches that run for so long at a time, by a clock that moves only while somebody waits for them."""

    def __init__(self, waits_s: float) -> None:
        self.waits_s = waits_s
        self.clock = ManualClock()
        self.asked: list[float] = []

    def __call__(self, at_most_s: float) -> bool:
        self.asked.append(at_most_s)
        self.clock.pass_(min(at_most_s, self.waits_s))
        return at_most_s > self.waits_s


def put(store: ExactGalleryStore, name: str, cosine: float, subject: str = "S2", **where: str) -> None:
    place = {"owner": "northshire", "watchlist_id": "custody", **where}
    store.put([ReferenceRecord(name, subject, version=1, expires_at=0, **place)], at(cosine)[None, :])


def ask(finding: FindNeighbours, *own: float, **changes: str) -> search_pb2.FindNeighboursResponse:
    probe = search_pb2.NeighbourProbe(
        reference_id="new",
        subject_id="S1",
        vector=at(1.0).tobytes(),
        own_vectors=b"".join(at(cosine).tobytes() for cosine in own),
    )
    fields = {"watchlist_id": "custody", "owner": "northshire", "model_id": "m1", **changes}
    request = search_pb2.FindNeighboursRequest(dimension=4, probes=[probe], **fields)
    scope, queries = queries_of(request)
    return response_of(finding(scope, request.model_id, queries))


def test_bands_and_no_score(store: ExactGalleryStore, finding: FindNeighbours) -> None:
    for name, cosine in (("far", 0.4), ("some", 0.6), ("more", 0.8), ("same", 0.99)):
        put(store, name, cosine, f"S-{name}")
    [found] = ask(finding).findings
    assert [(each.reference_id, each.band) for each in found.neighbours] == [
        ("same", "near_identical"),
        ("more", "strong"),
        ("some", "probable"),
    ]
    assert {field.name for field in search_pb2.Neighbour.DESCRIPTOR.fields} == {"reference_id", "subject_id", "band"}


def test_a_score_equal_to_the_point_counts(store: ExactGalleryStore, finding: FindNeighbours) -> None:
    put(store, "at", 0.5)
    assert len(ask(finding).findings[0].neighbours) == 1


def test_nothing_of_other_owners_and_watchlists(store: ExactGalleryStore, finding: FindNeighbours) -> None:
    put(store, "eastmoor's", 0.99, owner="eastmoor")
    put(store, "another list's", 0.99, watchlist_id="sex_offenders")
    assert not ask(finding).findings[0].neighbours


def test_of_its_own_subject_only_what_is_nearly_the_same_picture(
    store: ExactGalleryStore, finding: FindNeighbours
) -> None:
    put(store, "new", 1.0, "S1")
    put(store, "own", 0.8, "S1")
    put(store, "copy", 0.97, "S1")
    assert [each.reference_id for each in ask(finding).findings[0].neighbours] == ["copy"]


def test_many_of_its_own_hide_nobody(store: ExactGalleryStore, finding: FindNeighbours) -> None:
    for number in range(80):
        put(store, f"own-{number:02d}", 0.9, "S1")
    put(store, "other", 0.6)
    assert [each.reference_id for each in ask(finding).findings[0].neighbours] == ["other"]


def test_enough_that_count_are_not_asked_for_twice(
    store: ExactGalleryStore, finding: FindNeighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "new", 1.0, "S1")
    for number in range(MAX_NEIGHBOURS * 9):
        put(store, f"other-{number:03d}", 0.99 - number / 2000, f"S-{number:03d}")
    asked: list[int] = []
    aside = store.search_aside

    def noting(probe: Any, scopes: Any, limit: int) -> Any:
        asked.append(limit)
        return aside(probe, scopes, limit)

    monkeypatch.setattr(store, "search_aside", noting)
    found = [each.reference_id for each in ask(finding).findings[0].neighbours]
    assert found == [f"other-{number:03d}" for number in range(MAX_NEIGHBOURS)]
    assert asked == [MAX_NEIGHBOURS + 1]


@pytest.mark.parametrize(
    ("own", "is_unlike"), [((), False), ((0.1,), True), ((0.1, 0.3), False), ((0.2,), False), ((-0.5, 0.19), True)]
)
def test_unlike_is_unlike_every_other(finding: FindNeighbours, own: tuple[float, ...], is_unlike: bool) -> None:
    assert ask(finding, *own).findings[0].is_unlike_own is is_unlike


def test_another_model_is_never_compared(finding: FindNeighbours) -> None:
    with pytest.raises(ModelMismatch):
        ask(finding, model_id="m2")


def test_what_is_not_sound_is_refused() -> None:
    whole: dict[str, Any] = {"watchlist_id": "custody", "owner": "northshire", "model_id": "m1", "dimension": 4}
    probe = search_pb2.NeighbourProbe(vector=at(1.0).tobytes())
    for probes in ([search_pb2.NeighbourProbe(vector=b"1234")], [search_pb2.NeighbourProbe(vector=bytes(16))]):
        with pytest.raises(InvalidRequest):
            queries_of(search_pb2.FindNeighboursRequest(probes=probes, **whole))
    for changes in ({"owner": ""}, {"watchlist_id": ""}, {"dimension": 0}):
        with pytest.raises(InvalidRequest):
            queries_of(search_pb2.FindNeighboursRequest(probes=[probe], **(whole | changes)))
    with pytest.raises(InvalidRequest):
        queries_of(search_pb2.FindNeighboursRequest(probes=[probe] * 65, **whole))


class TestMakingWay:
    """Comparisons are nobody's haste: each waits until no search runs, and at last goes on beside them."""

    def find(self, finding: FindNeighbours, turn: Turn, count: int) -> int:
        made = FindNeighbours(finding._gallery, finding._points, turn.clock, turn)
        query = NeighbourQuery("new", "S1", at(1.0), np.empty((0, 4), np.float32))
        return len(made(SearchScope("custody", frozenset({"northshire"})), "m1", [query] * count).found)

    def test_each_comparison_asks_and_so_does_a_question_without_one(self, finding: FindNeighbours) -> None:
        turn = Turn(waits_s=0.0)
        assert self.find(finding, turn, 3) == 3
        assert turn.asked == [PATIENCE_S] * 3
        assert self.find(finding, turn, 0) == 0
        assert turn.asked == [PATIENCE_S] * 4

    def test_a_comparison_leaves_all_threads_but_one_to_searches(
        self, finding: FindNeighbours, store: ExactGalleryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(store, "some", 0.6)
        asked: list[int | None] = []
        best = ExactScan.best

        def noting(scan: ExactScan, *given: Any, at_most_threads: int | None = None) -> list[GalleryHit]:
            asked.append(at_most_threads)
            return best(scan, *given, at_most_threads=at_most_threads)

        monkeypatch.setattr(ExactScan, "best", noting)
        ask(finding)
        store.search(at(1.0), (SearchScope("custody", frozenset({"northshire"})),), 1)
        assert asked == [1, None]

    def test_searches_that_never_pause_hold_one_request_up_for_so_long_and_no_longer(
        self, finding: FindNeighbours
    ) -> None:
        turn = Turn(waits_s=PATIENCE_S)
        assert self.find(finding, turn, MAX_PROBES) == MAX_PROBES
        assert sum(turn.asked) == PATIENCE_IN_ALL_S
        assert PATIENCE_IN_ALL_S < GALLERY_DEADLINE_S / 2, "or ingest gives the request up before its answer"


class TestPoints:
    def test_without_points_for_the_model_nothing_is_found(self) -> None:
        assert FlagPointsFile().find(MODEL) is None

    def test_the_packaged_points_belong_to_the_preprocessing_they_were_measured_with(self) -> None:
        sface = ModelProvenance("x", "d", "", "sface-2021dec-int8bq", "", "", 128, "p3-c792478", "", "")
        later = ModelProvenance("x", "d", "", "sface-2021dec-int8bq", "", "", 128, "p4-c792478", "", "")
        found = FlagPointsFile().find(sface)
        assert found is not None
        assert found.unlike < found.same_person
        assert FlagPointsFile().find(later) is None

    @pytest.mark.parametrize(
        "change",
        [
            {"unlike": 0.6},
            {"duplicate": 0.4},
            {"recogniser": "x*"},
            {"evidence": {}},
            {"strong": 0.4},
            {"same_person": 2},
        ],
    )
    def test_points_that_do_not_hold_together_are_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(ConfigurationError):
            parse_flag_points(json.dumps({"format": 1, "flag_points": [POINTS | change]}), "a test")
