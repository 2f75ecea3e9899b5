"""A withdrawn template is physically gone from Milvus: its segments hold fewer rows, not rows marked as deleted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pymilvus import MilvusClient

from services.search.adapters.milvus_compaction import MilvusCompaction
from services.search.adapters.milvus_gallery_store import MilvusGalleryStore
from services.search.adapters.milvus_schema import collection_name
from services.search.ports import ReferenceRecord
from services.search.settings import GallerySettings
from services.shared.clock import SystemClock
from services.shared.ids import new_id
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

ROWS, WITHDRAWN = 300, 3  # far under the fifth that Milvus would wait for


@pytest.fixture
def settings(milvus_uri: str) -> Iterator[GallerySettings]:
    settings = GallerySettings(kind="milvus", uri=milvus_uri, collection=f"c_{new_id().replace('-', '')}")
    yield settings
    client = MilvusClient(milvus_uri)
    for name in client.list_collections():
        if name.startswith(settings.collection):
            for alias in client.list_aliases(name)["aliases"]:
                client.drop_alias(alias)
            client.drop_collection(name)
    client.close()


def test_what_was_withdrawn_is_in_no_segment(settings: GallerySettings) -> None:
    store, compaction = MilvusGalleryStore(settings), MilvusCompaction(settings, SystemClock(), 0)
    client = MilvusClient(settings.uri)
    try:
        store.open("m1", 8)
        records = [ReferenceRecord(f"r-{n}", f"S-{n}", "northshire", "custody", 1, 0) for n in range(ROWS)]
        vectors = np.random.default_rng(1).standard_normal((ROWS, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        store.put(records, vectors)
        name = collection_name(settings.collection, "m1")
        client.flush(name)

        def held() -> int:
            """Rows in segments; those marked as deleted are counted."""
            return int(client.get_collection_stats(name)["row_count"])

        assert held() == ROWS
        assert store.withdraw([f"r-{n}" for n in range(WITHDRAWN)], [2] * WITHDRAWN) == WITHDRAWN
        client.flush(name)
        assert held() == ROWS, "withdrawn, and still there: what compaction is for"
        compaction.ask()
        compaction.step()
        wait_until(lambda: held() == ROWS - WITHDRAWN, 300, lambda: f"the rows to go, {held()} are there")
        assert sum(store.counts().values()) == ROWS - WITHDRAWN
    finally:
        client.close()
        compaction.close()
        store.close()
