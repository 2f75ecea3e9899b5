"""The index of a gallery: what may be set, how recall is stated, and what a poor index is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.settings import GalleryIndexSettings
from services.search.upkeep.index import EXACT, GalleryIndex, IndexRecall
from services.search.upkeep.index_watch import IndexWatch
from services.shared.errors import GalleryIncomplete
from services.shared.telemetry import Metrics

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def recall(share: float, probes: int = 100) -> IndexRecall:
    return IndexRecall.of(50, [share] * probes, 0.7, 1000, NOW)


class ApproximateStore(ExactGalleryStore):
    """Says that it is approximate, with the recall that it is given."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share
        self._found: IndexRecall | None = None
        self.measurements = 0

    @property
    def index(self) -> GalleryIndex:
        return GalleryIndex("HNSW", False, {"M": 8}, {"ef": 64}, self._found)

    def measure_recall(self) -> None:
        self.measurements += 1
        self._found = recall(self._share)


class TestSettings:
    def test_exact_is_the_default_and_takes_nothing(self) -> None:
        assert GalleryIndexSettings().kind == "FLAT"
        with pytest.raises(ValidationError, match="FLAT has no parameter ef"):
            GalleryIndexSettings(search={"ef": 10})

    @pytest.mark.parametrize(
        ("kind", "build", "search"),
        [
            ("HNSW", {"M": 16, "efConstruction": 400}, {"ef": 512}),
            ("GPU_IVF_FLAT", {"nlist": 16}, {"nprobe": 64}),
            ("GPU_CAGRA", {"intermediate_graph_degree": 128, "graph_degree": 16}, {"itopk_size": 512}),
        ],
    )
    def test_what_is_left_out_has_a_stated_value(
        self, kind: str, build: dict[str, int], search: dict[str, int]
    ) -> None:
        [given] = [{name: 16} for name in build if build[name] == 16]
        settings = GalleryIndexSettings.model_validate({"kind": kind, "build": given})
        assert (settings.build, settings.search) == (build, search)

    def test_a_parameter_of_another_index_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="GPU_CAGRA has no parameter nprobe"):
            GalleryIndexSettings.model_validate({"kind": "GPU_CAGRA", "search": {"nprobe": 8}})


class TestRecall:
    def test_the_interval_holds_the_mean_and_narrows_with_probes(self) -> None:
        few, many = recall(0.9, 20), recall(0.9, 2000)
        assert few.low < many.low < 0.9 < many.high < few.high
        assert many.low > 0.88

    def test_all_found_is_not_said_to_be_certain(self) -> None:
        found = recall(1.0, 200)
        assert (found.recall, found.high) == (1.0, 1.0)
        assert 0.97 < found.low < 0.99

    def test_nothing_is_said_beside_an_exact_search(self) -> None:
        assert EXACT.statement() == ""
        assert EXACT.document()["recall"] is None

    def test_an_approximate_one_says_what_it_misses(self) -> None:
        index = GalleryIndex("HNSW", False, {}, {}, recall(0.95))
        assert "approximate index (HNSW)" in index.statement()
        assert "%" not in index.statement()
        assert index.document()["recall"]["recall"] == 0.95


class TestFloor:
    def watch(self, **settings: object) -> IndexWatch:
        chosen = GalleryIndexSettings.model_validate({"kind": "HNSW", "min_recall": 0.9, **settings})
        return IndexWatch(chosen, Metrics(CollectorRegistry()))

    def test_below_the_floor_nothing_is_searched(self) -> None:
        watch, store = self.watch(), ApproximateStore(0.8)
        with pytest.raises(GalleryIncomplete, match="not been measured"):
            watch.require(store, 10)
        watch.tend(store, 10)
        with pytest.raises(GalleryIncomplete) as refused:
            watch.require(store, 10)
        assert refused.value.code == "index_below_floor"

    def test_or_only_warned_of(self) -> None:
        watch, store = self.watch(below_floor="warn"), ApproximateStore(0.8)
        watch.tend(store, 10)
        watch.require(store, 10)

    def test_it_is_measured_again_when_the_gallery_has_grown(self) -> None:
        watch, store = self.watch(), ApproximateStore(0.95)
        for references in (0, 1000, 1050, 1099, 1101, 1101):
            watch.tend(store, references)
        watch.require(store, 1101)
        assert store.measurements == 2

    def test_an_exact_gallery_is_never_measured(self) -> None:
        watch, store = self.watch(), ExactGalleryStore()
        watch.tend(store, 1000)
        watch.require(store, 1000)
        assert watch.index(store) is EXACT
