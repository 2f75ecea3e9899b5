"""A gallery is rebuilt beside the one in use: no search misses anything meanwhile, and drift is gone afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.rpc.v1 import ingest_pb2
from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.ports import SearchScope
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.biometric import ModelProvenance, Vector
from services.shared.errors import Conflict, DependencyUnavailable
from services.shared.telemetry import Metrics

MODEL = ModelProvenance("m1", "det", "d" * 64, "rec", "e" * 64, "Apache-2.0", 8, "p1", "rt 1", "CPU")
SCOPES = [SearchScope("custody", frozenset({"northshire"}))]


def vector(number: int) -> Vector:
    drawn = np.random.default_rng(number).standard_normal(8).astype(np.float32)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def batch(numbers: Sequence[int], version: int = 1) -> ingest_pb2.ReferenceBatch:
    return ingest_pb2.ReferenceBatch(
        watchlist_id="custody",
        reference_ids=[f"r-{number}" for number in numbers],
        subject_ids=[f"s-{number}" for number in numbers],
        owners=["northshire"] * len(numbers),
        image_sha256s=[""] * len(numbers),
        vectors=b"".join(vector(number).tobytes() for number in numbers),
        dimension=8,
        model_id="m1",
        versions=[version] * len(numbers),
        expires_at=[0] * len(numbers),
    )


class FakeLedger:
    """Gives its batches one by one; a test may hold it up, or have it fail, before the last."""

    def __init__(self) -> None:
        self.batches = [batch(range(50)), batch(range(50, 100))]
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.error: DependencyUnavailable | None = None

    def read_references(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        for number, each in enumerate(self.batches):
            if number == len(self.batches) - 1:
                self.reached.set()
                assert self.go_on.wait(60)
                if self.error is not None:
                    raise self.error
            yield each

    def count(self) -> ingest_pb2.LedgerCounts:
        return ingest_pb2.LedgerCounts()


class FakeModels:
    def describe_model(self) -> ModelProvenance:
        return MODEL


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def keeper(ledger: FakeLedger) -> Iterator[GalleryKeeper]:
    metrics = Metrics(CollectorRegistry())
    keeper = GalleryKeeper(ExactGalleryStore(), FakeModels(), ledger, metrics, fresh=ExactGalleryStore)
    keeper.tend()
    yield keeper
    keeper.close()


def found(keeper: GalleryKeeper, number: int) -> bool:
    answer = keeper.search("m1", vector(number), SCOPES, 5)
    return f"r-{number}" in {hit.reference.reference_id for hit in answer.hits}


def test_searches_and_changes_go_on_while_it_is_rebuilt(keeper: GalleryKeeper, ledger: FakeLedger) -> None:
    ledger.reached.clear()
    ledger.go_on.clear()
    rebuild = threading.Thread(target=keeper.rebuild)
    rebuild.start()
    assert ledger.reached.wait(60)
    assert all(found(keeper, number) for number in range(100))
    keeper.put(batch([200]))
    keeper.withdraw(["r-10"], [2])
    with pytest.raises(Conflict):
        keeper.rebuild()
    ledger.go_on.set()
    rebuild.join(60)
    assert not rebuild.is_alive()
    assert found(keeper, 200), "what was enrolled meanwhile is in the new one"
    assert not found(keeper, 10), "what was withdrawn meanwhile is not"
    assert sum(keeper.counts_by_watchlist().values()) == 100


def test_drift_is_gone_after_a_rebuild_and_the_account_says_so(keeper: GalleryKeeper, ledger: FakeLedger) -> None:
    true = keeper.snapshot(SCOPES, since=keeper.generation)
    keeper.put(batch([900]))
    keeper.withdraw(["r-5"], [1])
    drifted = keeper.snapshot(SCOPES, since=keeper.generation)
    keeper.rebuild()
    after = keeper.snapshot(SCOPES, since=keeper.generation)
    assert found(keeper, 5)
    assert not found(keeper, 900)
    assert true is not None
    assert drifted is not None
    assert after is not None
    assert after.partitions == true.partitions != drifted.partitions


def test_a_rebuild_that_fails_changes_nothing(keeper: GalleryKeeper, ledger: FakeLedger) -> None:
    ledger.error = DependencyUnavailable("the ledger went away")
    with pytest.raises(DependencyUnavailable):
        keeper.rebuild()
    assert all(found(keeper, number) for number in range(100))
    ledger.error = None
    keeper.rebuild()
    keeper.put(batch([300]))
    assert found(keeper, 300)
