"""Approximate indexes of a real Milvus: what is measured is what a search gives, and an exact one stays the default."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from services.search.adapters.milvus_gallery_store import MilvusGalleryStore
from services.search.settings import GalleryIndexSettings, GallerySettings
from services.shared.ids import new_id
from tests.contract import test_gallery_store as contract

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
