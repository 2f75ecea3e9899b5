"""MilvusGalleryStore against a real server: the port's contract, and what only a server can do wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pymilvus import MilvusClient
from pymilvus.grpc_gen import milvus_pb2

from services.search.adapters.milvus_gallery_store import MilvusGalleryStore
from services.search.adapters.milvus_schema import partition_name, tombstones_name
from services.search.ports import GalleryStore, ReferenceRecord
from services.search.settings import GallerySettings
from services.shared.biometric import Vector
from services.shared.errors import DependencyUnavailable, GalleryIncomplete, ModelMismatch
from services.shared.ids import new_id
from tests.contract import test_gallery_store as contract
from tests.stack.milvus_wire import Lie, Recorder, big_score, drop_a_hit, foreign_owner, nan_score, unknown_id
from tests.stack.servers.base import ServerProcess, free_ports
from tests.stack.servers.milvus import milvus_server
from tests.support.promises import within
from tests.support.waiting import wait_until

store = contract.store


@pytest.fixture(scope="module")
def collection() -> str:
    """Loading a new collection takes Milvus seconds, so that the contract's many galleries are one, emptied between."""
    return f"t_{new_id().replace('-', '')}"


@pytest.fixture
def settings(milvus_uri: str, collection: str) -> GallerySettings:
    return GallerySettings(kind="milvus", uri=milvus_uri, collection=collection, timeout_s=30)


@pytest.fixture
def closed_store(settings: GallerySettings) -> Iterator[GalleryStore]:
    empty(settings)
    gallery = MilvusGalleryStore(settings)
    yield gallery
    gallery.close()


def empty(settings: GallerySettings) -> None:
    client = MilvusClient(settings.uri)
    for collection in (settings.collection, tombstones_name(settings.collection)):
        if client.has_collection(collection):
            client.delete(collection, filter="version >= 0")
            [row] = client.query(collection, output_fields=["count(*)"], consistency_level="Strong")
            assert row["count(*)"] == 0
    client.close()


class TestExactness(contract.TestExactness):
    """The contract, held on Milvus."""


class TestScope(contract.TestScope):
    """The contract, held on Milvus."""


class TestVersions(contract.TestVersions):
    """The contract, held on Milvus."""


class TestWithdrawal(contract.TestWithdrawal):
    """The contract, held on Milvus."""


class TestLife(contract.TestLife):
    """The contract, held on Milvus."""


class TestConcurrency(contract.TestConcurrency):
    """The contract, held on Milvus, in a collection of its own: there no row has the key of one removed before."""

    @pytest.fixture
    def collection(self) -> str:
        return f"t_{new_id().replace('-', '')}"


class TestDurability:
    def test_another_process_finds_everything(self, store: GalleryStore, settings: GallerySettings) -> None:
        store.put(contract.records_of(20), contract.vectors_of(20))
        store.put(contract.records_of(3, 100, "op_liberal", "eastshire"), contract.vectors_of(3))
        store.withdraw([contract.record_of(4).reference_id], [2])
        other = MilvusGalleryStore(settings)
        other.open(contract.MODEL, contract.DIMENSION)
        assert dict(other.counts()) == {("custody", "northshire"): 19, ("op_liberal", "eastshire"): 3}
        assert other.put([contract.record_of(4)], contract.vectors_of(1)).unchanged == 1
        other.close()

    def test_what_one_process_writes_another_sees_at_once(self, store: GalleryStore, settings: GallerySettings) -> None:
        other = MilvusGalleryStore(settings)
        other.open(contract.MODEL, contract.DIMENSION)
        for number in range(10):
            vector = contract.vectors_of(1, seed=number)
            watchlist = f"list-{number % 3}"  # partitions that the other has not seen
            store.put([contract.record_of(number, watchlist)], vector)
            [hit] = other.search(vector[0], [contract.scope(watchlist)], 1).hits
            assert hit.reference.reference_id == contract.record_of(number).reference_id
            assert other.withdraw([hit.reference.reference_id], [2]) == 1
            assert store.search(vector[0], [contract.scope(watchlist)], 1).compared == 0
        other.close()

    def test_another_model_is_refused_until_the_gallery_is_empty(
        self, store: GalleryStore, settings: GallerySettings
    ) -> None:
        store.put(contract.records_of(1), contract.vectors_of(1))
        other = MilvusGalleryStore(settings)
        with pytest.raises(ModelMismatch):
            other.open("another model", 64)
        store.withdraw([contract.record_of(0).reference_id], [2])
        other.open("another model", 64)
        other.close()
        again = MilvusGalleryStore(settings)
        again.open(contract.MODEL, contract.DIMENSION)
        again.close()


class TestOnTheWire:
    def test_only_permitted_partitions_and_owners_are_asked_for(
        self, store: GalleryStore, settings: GallerySettings, milvus_uri: str
    ) -> None:
        store.put(contract.records_of(5), contract.vectors_of(5))
        store.put(contract.records_of(5, 100, "sex_offenders"), contract.vectors_of(5))
        store.put(contract.records_of(5, 200, "op_liberal", "eastshire"), contract.vectors_of(5))
        with Recorder(milvus_uri) as wire:
            watched = MilvusGalleryStore(settings.model_copy(update={"uri": wire.uri}))
            watched.open(contract.MODEL, contract.DIMENSION)
            wire.clear()
            scopes = [contract.scope("custody"), contract.scope("op_liberal", "eastshire")]
            assert watched.search(contract.vectors_of(1)[0], scopes, 50).compared == 10
            watched.close()
            searches = [milvus_pb2.SearchRequest.FromString(body) for body in wire.bodies("Search")]
            counts = [milvus_pb2.QueryRequest.FromString(body) for body in wire.bodies("Query")]
        asked = {(tuple(request.partition_names), request.dsl) for request in searches}
        assert asked == {
            ((partition_name("custody"),), 'owner in ["northshire"]'),
            ((partition_name("op_liberal"),), 'owner in ["eastshire"]'),
        }
        assert {name for request in counts for name in request.partition_names} == {
            partition_name("custody"),
            partition_name("op_liberal"),
        }


class TestIncomplete:
    def test_a_partition_that_is_not_loaded_is_refused(self, store: GalleryStore, settings: GallerySettings) -> None:
        store.put(contract.records_of(5), contract.vectors_of(5))
        store.put(contract.records_of(5, 100, "op_liberal"), contract.vectors_of(5))
        client = MilvusClient(settings.uri)
        client.release_partitions(settings.collection, [partition_name("op_liberal")])
        both = [contract.scope("custody"), contract.scope("op_liberal")]
        with pytest.raises(GalleryIncomplete):
            store.search(contract.vectors_of(1)[0], both, 5)
        assert store.search(contract.vectors_of(1)[0], both[:1], 5).compared == 5
        client.load_partitions(settings.collection, [partition_name("op_liberal")])
        assert store.search(contract.vectors_of(1)[0], both, 5).compared == 10
        client.close()

    def test_a_partition_that_is_gone_is_refused(self, store: GalleryStore, settings: GallerySettings) -> None:
        gone = f"gone-{new_id()}"
        store.put([contract.record_of(1, gone)], contract.vectors_of(1))
        client = MilvusClient(settings.uri)
        client.release_partitions(settings.collection, [partition_name(gone)])
        client.drop_partition(settings.collection, partition_name(gone))
        with pytest.raises(GalleryIncomplete):
            store.search(contract.vectors_of(1)[0], [contract.scope(gone)], 5)
        client.close()

    @pytest.mark.parametrize("lie", [drop_a_hit, nan_score, big_score, foreign_owner, unknown_id])
    def test_an_answer_that_is_not_whole_or_not_true_is_refused(
        self, store: GalleryStore, settings: GallerySettings, milvus_uri: str, lie: Lie
    ) -> None:
        store.put(contract.records_of(5), contract.vectors_of(5))
        with Recorder(milvus_uri, lie) as wire:
            watched = MilvusGalleryStore(settings.model_copy(update={"uri": wire.uri}))
            watched.open(contract.MODEL, contract.DIMENSION)
            with pytest.raises(GalleryIncomplete):
                watched.search(contract.vectors_of(1)[0], [contract.scope()], 50)
            watched.close()


class TestFailure:
    """Against a server of their own, which they kill and pause."""

    @pytest.fixture
    def own(self) -> Iterator[tuple[ServerProcess, GallerySettings]]:
        server, uri = milvus_server()
        server.start()
        yield server, GallerySettings(kind="milvus", uri=uri, timeout_s=3.0)
        server.resume()
        server.discard()

    def test_down_slow_and_back(self, own: tuple[ServerProcess, GallerySettings]) -> None:
        server, settings = own
        store = MilvusGalleryStore(settings)
        store.open(contract.MODEL, contract.DIMENSION)
        records, vectors = contract.records_of(50), contract.vectors_of(50)
        store.put(records, vectors)
        probe, scopes = vectors[3], [contract.scope()]

        def fails() -> None:
            with pytest.raises((DependencyUnavailable, GalleryIncomplete)):
                store.search(probe, scopes, 5)

        server.pause()
        threads = threading.active_count()
        within(4, fails)
        with ThreadPoolExecutor(8) as pool:  # a crowd: the breaker opens, nobody piles up
            for failed in [pool.submit(within, 8, fails) for _ in range(12)]:
                failed.result(timeout=240)
        within(0.5, fails)  # but for the one in five seconds that is let through to see
        assert threading.active_count() - threads <= 32
        server.resume()
        _until_found(store, records[3], probe)
        server.kill()
        within(3, fails)
        server.start()
        _until_found(store, records[3], probe)
        assert store.search(probe, scopes, 5).compared == 50
        assert store.put(records, vectors).unchanged == 50
        store.close()

    def test_nobody_there_is_said_at_once(self) -> None:
        [port] = free_ports(1)
        store = MilvusGalleryStore(GallerySettings(kind="milvus", uri=f"http://127.0.0.1:{port}"))

        def fails() -> None:
            with pytest.raises(DependencyUnavailable):
                store.open(contract.MODEL, contract.DIMENSION)

        within(3, fails)
        store.close()


def _until_found(store: GalleryStore, record: ReferenceRecord, probe: Vector) -> None:
    """A restarted server loads its collection; until then searches are refused, never answered in part."""
    told = "nothing yet"

    def is_found() -> bool:
        nonlocal told
        try:
            answer = store.search(probe, [contract.scope()], 5)
        except (DependencyUnavailable, GalleryIncomplete) as refused:
            told = refused.detail
            return False
        assert answer.hits[0].reference == record
        return True

    wait_until(is_found, 300, lambda: f"the reference to be found again: {told}", 0.2)
