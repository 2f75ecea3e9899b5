"""Approximate indexes of a real Milvus: what is measured is what a search gives, and an exact one stays the default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import grpc
import numpy as np
import pytest
from pymilvus.grpc_gen import milvus_pb2

from services.search.adapters.milvus_gallery_store import MilvusGalleryStore
from services.search.settings import GalleryIndexSettings, GallerySettings
from services.shared.errors import ConfigurationError
from services.shared.ids import new_id
from tests.contract import test_gallery_store as contract
from tests.integration.search.peers import Peers, Reference, batch_of, vector_of
from tests.integration.search.process import Operator, SearchThread
from tests.stack.milvus_wire import Recorder
from tests.support.waiting import wait_until

# Below 1,024 rows Milvus builds no index over a segment but compares with every row.
ROWS = 4000
BUILT_S = 90.0


@pytest.fixture(scope="module")
def collection() -> str:
    return f"t_{new_id().replace('-', '')}"


@pytest.fixture(scope="module")
def settings(milvus_uri: str, collection: str) -> Iterator[GallerySettings]:
    """A filled gallery, searched exactly."""
    chosen = GallerySettings(kind="milvus", uri=milvus_uri, collection=collection, timeout_s=20)
    store = opened(chosen)
    vectors = contract.vectors_of(ROWS)
    for start in range(0, ROWS, 2000):
        store.put(contract.records_of(2000, start), vectors[start : start + 2000])
    store.measure_recall()
    assert store.index.is_exact
    assert store.index.recall is None, "an exact index is not measured"
    store.close()
    yield chosen


def opened(settings: GallerySettings, **index: Any) -> MilvusGalleryStore:
    chosen = settings.model_copy(update={"index": GalleryIndexSettings.model_validate(index)}) if index else settings
    store = MilvusGalleryStore(chosen)
    store.open(contract.MODEL, contract.DIMENSION)
    return store


def measured_below(store: MilvusGalleryStore, bound: float) -> float:
    """The recall once the index is in use; a segment is searched row by row until its index has been built."""
    deadline = monotonic() + BUILT_S
    while True:
        store.measure_recall()
        found = store.index.recall
        assert found is not None
        if found.recall < bound or monotonic() > deadline:
            return found.recall
        sleep(0.5)


def true_best(vectors: Any, probe: Any) -> set[str]:
    best = np.argsort(-(vectors @ probe))[:50]
    return {contract.record_of(int(place)).reference_id for place in best}


def test_a_poor_index_is_found_out_and_a_good_one_takes_its_place(settings: GallerySettings) -> None:
    vectors = contract.vectors_of(ROWS)
    poor = opened(settings, kind="IVF_FLAT", build={"nlist": 128}, search={"nprobe": 8}, probes=50)
    said = measured_below(poor, 0.9)
    assert said < 0.9
    assert poor.index.document()["kind"] == "IVF_FLAT"
    assert "IVF_FLAT" in poor.name
    seen = [
        len({hit.reference.reference_id for hit in poor.search(v, [contract.scope()], 50).hits} & true_best(vectors, v))
        for v in contract.vectors_of(20, seed=5)
    ]
    assert np.mean(seen) / 50 < 0.95, "what is measured is what searches give"
    poor.close()

    good = opened(settings, kind="HNSW", probes=50)
    good.measure_recall()
    found = good.index.recall
    assert found is not None
    assert found.recall > 0.97
    assert found.low < found.recall <= found.high
    assert (found.at, found.references, found.probes) == (50, ROWS, 50)
    assert len(good.search(vectors[7], [contract.scope()], 50).hits) == 50
    good.close()

    exact = opened(settings)
    assert exact.index.is_exact
    answer = exact.search(vectors[7], [contract.scope()], 50)
    assert {hit.reference.reference_id for hit in answer.hits} == true_best(vectors, vectors[7])
    exact.close()


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    peers = Peers()
    peers.embed.model_id = contract.MODEL
    vectors = contract.vectors_of(ROWS)
    held = [
        Reference(each.reference_id, each.subject_id, vectors[place], expires_at=each.expires_at)
        for place, each in enumerate(contract.records_of(ROWS))
    ]
    peers.ledger.batches = [batch_of(held[start : start + 1000], contract.MODEL) for start in range(0, ROWS, 1000)]
    with peers.running():
        yield peers


class PretendedGpuServer(Recorder):
    """Says that it was built for GPUs and builds FLAT, so that it is seen what a GPU would be asked for."""

    def _relay(self, path: str, body: bytes, context: grpc.ServicerContext) -> bytes:
        method = path.rpartition("/")[2]
        if method == "CreateIndex":
            self._seen.append(("Wanted", body))
            request = milvus_pb2.CreateIndexRequest.FromString(body)
            del request.extra_params[:]
            request.extra_params.add(key="index_type", value="FLAT")
            request.extra_params.add(key="metric_type", value="IP")
            body = request.SerializeToString()
        answer = super()._relay(path, body, context)
        if method != "GetVersion":
            return answer
        version = milvus_pb2.GetVersionResponse.FromString(answer)
        version.version += "-gpu"
        return bytes(version.SerializeToString())


class TestGpu:
    """What can be known of the GPU indexes without a GPU."""

    @pytest.mark.parametrize("kind", ["GPU_BRUTE_FORCE", "GPU_IVF_FLAT", "GPU_CAGRA"])
    def test_a_server_without_one_is_refused_and_keeps_the_index_it_has(
        self, settings: GallerySettings, kind: str
    ) -> None:
        before = opened(settings)
        chosen = settings.model_copy(update={"index": GalleryIndexSettings.model_validate({"kind": kind})})
        store = MilvusGalleryStore(chosen)
        with pytest.raises(ConfigurationError, match="built for GPUs"):
            store.open(contract.MODEL, contract.DIMENSION)
        store.close()
        probe = contract.vectors_of(ROWS)[7]
        assert before.search(probe, [contract.scope()], 1).hits[0].reference == contract.record_of(7)
        before.close()

    @pytest.mark.parametrize(
        ("kind", "build", "search"),
        [
            ("GPU_BRUTE_FORCE", {}, {}),
            ("GPU_IVF_FLAT", {"nlist": 128}, {"nprobe": 64}),
            ("GPU_CAGRA", {"intermediate_graph_degree": 128, "graph_degree": 64}, {"itopk_size": 512}),
        ],
    )
    def test_it_is_asked_for_with_its_parameters(
        self, milvus_uri: str, kind: str, build: dict[str, int], search: dict[str, int]
    ) -> None:
        chosen = GallerySettings(kind="milvus", collection=f"t_{new_id().replace('-', '')}", timeout_s=20)
        with PretendedGpuServer(milvus_uri) as wire:
            store = opened(chosen.model_copy(update={"uri": wire.uri}), kind=kind)
            store.put(contract.records_of(5), contract.vectors_of(5))
            assert store.search(contract.vectors_of(5)[3], [contract.scope()], 5).compared == 5
            assert store.index.is_exact == (kind == "GPU_BRUTE_FORCE")
            store.close()
            wanted = milvus_pb2.CreateIndexRequest.FromString(wire.bodies("Wanted")[0])
            asked = milvus_pb2.SearchRequest.FromString(wire.bodies("Search")[0])
        sent = {pair.key: pair.value for pair in wanted.extra_params}
        assert (sent["index_type"], sent["metric_type"]) == (kind, "IP")
        # By version of the client parameters stand beside the type or one level below.
        assert {
            **json.loads(sent.get("params", "{}")),
            **{name: int(sent[name]) for name in build if name in sent},
        } == build
        given = {pair.key: pair.value for pair in asked.search_params}
        assert search.items() <= json.loads(given["params"]).items()


class TestInAnswers:
    """What a caller of the REST search sees of it: a service on this gallery, the ledger and the others played."""

    NAMES = tuple(f"probe {number}" for number in range(20))

    def test_below_the_floor_it_is_refused_or_said(
        self, settings: GallerySettings, peers: Peers, tmp_path: Path
    ) -> None:
        poor = opened(settings, kind="IVF_FLAT", build={"nlist": 128}, search={"nprobe": 8}, probes=50)
        said = measured_below(poor, 0.9)  # its index is built, so that whoever opens it next measures the same
        poor.close()
        chosen = {
            "KIND": "IVF_FLAT",
            "BUILD__NLIST": "128",
            "SEARCH__NPROBE": "8",
            "PROBES": "50",
            "MIN_RECALL": "0.97",
        }
        with searching(tmp_path / "refuse", settings, peers, **chosen) as service:
            service.wait_alive()
            operator = service.operator()
            ready = operator.http.get
            wait_until(lambda: "the floor is 0.97" in ready("/readyz").text, 180, lambda: ready("/readyz").text, 0.2)
            refused = operator.search(b"face:probe 0")
            assert refused.status_code == 503, refused.text
            assert "candidates" not in refused.json()
            assert operator.http.get("/readyz").status_code == 503
        with searching(tmp_path / "warn", settings, peers, **chosen, BELOW_FLOOR="warn") as service:
            service.wait_ready()
            operator = service.operator()
            used = operator.answer(b"face:probe 0")["gallery_index"]
            assert (used["kind"], used["is_exact"], used["search"]) == ("IVF_FLAT", False, {"nprobe": 8})
            # Segments that were not built yet have been since: it is never more than was measured before.
            assert used["recall"]["recall"] <= said + 0.02
            metric = service.metric('likeness_search_gallery_index_recall_ratio{kind="IVF_FLAT"}')
            assert used["recall"]["recall"] == pytest.approx(metric, abs=1e-4)
            assert used["recall"]["references"] == ROWS
            shares = [self._share(operator, name) for name in self.NAMES]
            assert np.mean(shares) < 0.97, "what is said is what answers are"

    def test_above_the_floor_answers_hold_what_they_say(
        self, settings: GallerySettings, peers: Peers, tmp_path: Path
    ) -> None:
        chosen = {"KIND": "HNSW", "PROBES": "50", "MIN_RECALL": "0.97"}
        with searching(tmp_path, settings, peers, **chosen) as service:
            service.wait_ready()
            operator = service.operator()
            used = operator.answer(b"face:probe 0")["gallery_index"]
            assert (used["kind"], used["is_exact"]) == ("HNSW", False)
            assert 0.97 <= used["recall"]["recall"] <= 1
            assert used["recall"]["low"] < used["recall"]["recall"]
            shares = [self._share(operator, name) for name in self.NAMES]
            assert np.mean(shares) > 0.9

    @staticmethod
    def _share(operator: Operator, name: str) -> float:
        """Of the ten best subjects by exact comparison, the share that one answer has."""
        found = operator.answer(f"face:{name}".encode(), max_candidates="50")["candidates"]
        order = np.argsort(-(contract.vectors_of(ROWS) @ vector_of(name)))
        best = list(dict.fromkeys(contract.record_of(int(place)).subject_id for place in order[:60]))[:10]
        return len({each["subject_id"] for each in found} & set(best)) / len(best)


@contextmanager
def searching(root: Path, settings: GallerySettings, peers: Peers, **index: str) -> Iterator[SearchThread]:
    """A search service on the gallery with that index, which is not ready yet."""
    root.mkdir(exist_ok=True)
    gallery = {"KIND": "milvus", "URI": settings.uri, "COLLECTION": settings.collection, "TIMEOUT_S": "20"}
    named = {**{f"GALLERY__{name}": value for name, value in gallery.items()}}
    service = SearchThread(root, peers, **named, **{f"GALLERY__INDEX__{name}": value for name, value in index.items()})
    service.start()
    try:
        yield service
    finally:
        service.end()
