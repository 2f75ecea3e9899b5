"""What every GalleryStore does, held equal for all adapters. Another adapter adds itself to ADAPTERS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.gallery.block import Cuts
from services.search.ports import GalleryStore, ListsReferences, ReferenceRecord, SearchScope
from services.shared.errors import GalleryIncomplete, ModelMismatch

DIMENSION = 128
MODEL = "yunet+sface+p1"
PATIENCE_S = 280.0  # a real server on a busy machine; less than the time that a test may take

# name -> a factory of an adapter that is not open yet
ADAPTERS: dict[str, Callable[[], GalleryStore]] = {
    "exact": ExactGalleryStore,
    # the same where every batch spans chunks and every search threads
    "exact in small pieces": lambda: ExactGalleryStore(threads=3, cuts=Cuts(chunk=32, codes=96, thread=64, first=4)),
}


@pytest.fixture(params=sorted(ADAPTERS))
def closed_store(request: pytest.FixtureRequest) -> Iterator[GalleryStore]:
    store = ADAPTERS[request.param]()
    yield store
    store.close()


@pytest.fixture
def store(closed_store: GalleryStore) -> GalleryStore:
    closed_store.open(MODEL, DIMENSION)
    return closed_store


def vectors_of(count: int, seed: int = 1) -> npt.NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((count, DIMENSION))
    unit: npt.NDArray[np.float32] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return unit


def record_of(number: int, watchlist: str = "custody", owner: str = "northshire", version: int = 1) -> ReferenceRecord:
    return ReferenceRecord(
        reference_id=f"r{number:08d}",
        subject_id=f"s{number // 2:08d}",
        owner=owner,
        watchlist_id=watchlist,
        version=version,
        expires_at=1_900_000_000 + number,
    )


def records_of(
    count: int, first: int = 0, watchlist: str = "custody", owner: str = "northshire"
) -> list[ReferenceRecord]:
    return [record_of(first + i, watchlist, owner) for i in range(count)]


def scope(watchlist: str = "custody", *owners: str) -> SearchScope:
    return SearchScope(watchlist, frozenset(owners or ("northshire",)))


def brute_force(
    records: list[ReferenceRecord], vectors: npt.NDArray[np.float32], probe: npt.NDArray[np.float32], limit: int
) -> list[tuple[str, float]]:
    """By definition: float64, best first, ties by reference_id."""
    scores = (vectors.astype(np.float64) * probe.astype(np.float64)).sum(axis=1)
    ranked = sorted(zip(records, scores, strict=True), key=lambda pair: (-pair[1], pair[0].reference_id))
    return [(record.reference_id, float(score)) for record, score in ranked[:limit]]


class TestExactness:
    def test_all_that_is_held_is_listed(self, store: GalleryStore) -> None:
        assert isinstance(store, ListsReferences)
        vectors = vectors_of(12)
        custody, offenders = records_of(7), records_of(5, 7, "sex_offenders")
        store.put(custody, vectors[:7])
        store.put(offenders, vectors[7:])
        store.withdraw([custody[3].reference_id], [2])
        listed = {
            (held.watchlist_id, name, version): vector.astype("<f4").tobytes()
            for held in store.references()
            for name, version, vector in zip(held.reference_ids, held.versions, held.vectors, strict=True)
        }
        assert listed == {
            (record.watchlist_id, record.reference_id, record.version): vector.astype("<f4").tobytes()
            for record, vector in zip([*custody, *offenders], vectors, strict=True)
            if record is not custody[3]
        }

    @pytest.mark.parametrize("limit", [1, 50, 200])
    def test_finds_what_brute_force_finds(self, store: GalleryStore, limit: int) -> None:
        records, vectors = records_of(3000), vectors_of(3000)
        store.put(records, vectors)
        for probe in vectors_of(5, seed=2):
            answer = store.search(probe, [scope()], limit)
            expected = brute_force(records, vectors, probe, limit)
            assert [hit.reference.reference_id for hit in answer.hits] == [reference_id for reference_id, _ in expected]
            np.testing.assert_allclose([hit.score for hit in answer.hits], [score for _, score in expected], atol=1e-6)
            assert answer.compared == 3000

    def test_a_limit_over_the_gallery_returns_all_of_it(self, store: GalleryStore) -> None:
        store.put(records_of(7), vectors_of(7))
        assert len(store.search(vectors_of(1, seed=2)[0], [scope()], 200).hits) == 7

    def test_equal_scores_stand_by_reference_id(self, store: GalleryStore) -> None:
        vector = vectors_of(1)
        shuffled = [record_of(i) for i in (5, 1, 4, 2, 3)]
        for record in shuffled:
            store.put([record], vector)
        found = [hit.reference.reference_id for hit in store.search(vector[0], [scope()], 3).hits]
        assert found == [record_of(i).reference_id for i in (1, 2, 3)]

    def test_the_record_comes_back_whole(self, store: GalleryStore) -> None:
        record = ReferenceRecord("réf-1", "subject ß", "eastshire", "op_liberal", 7, 1_999_999_999)
        vector = vectors_of(1)
        store.put([record], vector)
        hit = store.search(vector[0], [scope("op_liberal", "eastshire")], 5).hits[0]
        assert hit.reference == record
        assert hit.score == pytest.approx(1.0, abs=1e-6)
        assert -1.0 <= hit.score <= 1.0

    def test_an_opposite_vector_scores_minus_one(self, store: GalleryStore) -> None:
        vector = vectors_of(1)
        store.put([record_of(1)], vector)
        assert store.search(-vector[0], [scope()], 5).hits[0].score == pytest.approx(-1.0, abs=1e-6)


class TestScope:
    @pytest.fixture
    def filled(self, store: GalleryStore) -> GalleryStore:
        store.put(records_of(30), vectors_of(30, seed=1))
        store.put(records_of(20, 100, "sex_offenders"), vectors_of(20, seed=2))
        store.put(records_of(10, 200, "op_liberal", "eastshire"), vectors_of(10, seed=3))
        store.put(records_of(5, 300, "op_liberal", "westshire"), vectors_of(5, seed=4))
        return store

    def test_only_the_scope_is_compared(self, filled: GalleryStore) -> None:
        forbidden = vectors_of(20, seed=2)[3]
        answer = filled.search(forbidden, [scope("custody")], 50)
        assert answer.compared == 30
        assert {hit.reference.watchlist_id for hit in answer.hits} == {"custody"}

    def test_owners_within_a_watchlist_are_kept_apart(self, filled: GalleryStore) -> None:
        answer = filled.search(vectors_of(5, seed=4)[0], [scope("op_liberal", "eastshire")], 50)
        assert answer.compared == 10
        assert {hit.reference.owner for hit in answer.hits} == {"eastshire"}

    def test_scopes_are_joined_into_one_ranking(self, filled: GalleryStore) -> None:
        scopes = [scope("custody"), scope("op_liberal", "eastshire", "westshire")]
        answer = filled.search(vectors_of(5, seed=4)[0], scopes, 50)
        scores = [hit.score for hit in answer.hits]
        assert answer.compared == 45
        assert scores == sorted(scores, reverse=True)
        assert answer.hits[0].reference.owner == "westshire"

    def test_overlapping_scopes_compare_once(self, filled: GalleryStore) -> None:
        answer = filled.search(vectors_of(1)[0], [scope("custody"), scope("custody")], 50)
        assert answer.compared == 30
        assert len(answer.hits) == 30

    @pytest.mark.parametrize(
        "scopes", [[], [SearchScope("custody", frozenset())], [scope("custody", "nobody")], [scope("unknown")]]
    )
    def test_an_empty_scope_compares_nothing(self, filled: GalleryStore, scopes: list[SearchScope]) -> None:
        answer = filled.search(vectors_of(1)[0], scopes, 50)
        assert (list(answer.hits), answer.compared) == ([], 0)

    def test_counts_are_by_watchlist_and_owner(self, filled: GalleryStore) -> None:
        assert dict(filled.counts()) == {
            ("custody", "northshire"): 30,
            ("sex_offenders", "northshire"): 20,
            ("op_liberal", "eastshire"): 10,
            ("op_liberal", "westshire"): 5,
        }


class TestVersions:
    def test_the_same_version_changes_nothing(self, store: GalleryStore) -> None:
        records = records_of(10)
        assert store.put(records, vectors_of(10)).put == 10
        outcome = store.put(records, vectors_of(10, seed=9))
        assert (outcome.put, outcome.unchanged) == (0, 10)
        vector = vectors_of(10)[4]
        assert store.search(vector, [scope()], 1).hits[0].reference == records[4]
        assert store.counts()[("custody", "northshire")] == 10

    def test_a_newer_version_replaces(self, store: GalleryStore) -> None:
        store.put(records_of(10), vectors_of(10))
        new = vectors_of(1, seed=9)
        newer = replace(record_of(4, version=2), subject_id="other", expires_at=0)
        assert store.put([newer], new).put == 1
        hit = store.search(new[0], [scope()], 1).hits[0]
        assert hit.reference == newer
        assert hit.score == pytest.approx(1.0, abs=1e-6)
        assert store.counts()[("custody", "northshire")] == 10

    def test_an_older_version_changes_nothing(self, store: GalleryStore) -> None:
        newer = record_of(4, version=5)
        store.put([newer], vectors_of(1))
        assert store.put([record_of(4, version=4)], vectors_of(1, seed=9)).unchanged == 1
        assert store.search(vectors_of(1)[0], [scope()], 1).hits[0].reference == newer

    def test_the_newest_of_one_batch_wins(self, store: GalleryStore) -> None:
        batch = [record_of(1, version=1), record_of(1, version=3), record_of(1, version=2)]
        outcome = store.put(batch, vectors_of(3))
        assert (outcome.put, outcome.unchanged) == (1, 2)
        answer = store.search(vectors_of(3)[1], [scope()], 5)
        assert [hit.reference for hit in answer.hits] == [batch[1]]

    def test_a_newer_version_may_move_to_another_watchlist(self, store: GalleryStore) -> None:
        store.put(records_of(3), vectors_of(3))
        store.put([record_of(0, "op_liberal", version=2)], vectors_of(1))
        assert dict(store.counts()) == {("custody", "northshire"): 2, ("op_liberal", "northshire"): 1}
        probe = vectors_of(3)[0]
        assert all(hit.reference != record_of(0) for hit in store.search(probe, [scope()], 5).hits)
        assert store.search(probe, [scope("op_liberal")], 5).hits[0].reference.version == 2

    @pytest.mark.parametrize(
        "bad",
        [
            np.zeros((2, DIMENSION), np.float32),
            np.full((2, DIMENSION), np.nan, np.float32),
            np.full((2, DIMENSION), np.inf, np.float32),
            vectors_of(2) * np.float32(1.01),
            vectors_of(3),
            vectors_of(2)[:, :64],
            vectors_of(2)[0],
        ],
        ids=["zero", "nan", "infinite", "not unit", "too many rows", "wrong dimension", "one row"],
    )
    def test_bad_vectors_are_refused_and_nothing_is_kept(
        self, store: GalleryStore, bad: npt.NDArray[np.float32]
    ) -> None:
        with pytest.raises(ValueError, match="vectors must"):
            store.put(records_of(2), bad)
        assert dict(store.counts()) == {}

    def test_an_empty_batch_is_fine(self, store: GalleryStore) -> None:
        outcome = store.put([], np.empty((0, DIMENSION), np.float32))
        assert (outcome.put, outcome.unchanged) == (0, 0)


class TestWithdrawal:
    def test_a_withdrawn_reference_is_not_compared(self, store: GalleryStore) -> None:
        records, vectors = records_of(50), vectors_of(50)
        store.put(records, vectors)
        gone = [0, 7, 49, 48, 20]
        assert store.withdraw([records[i].reference_id for i in gone], [2] * len(gone)) == len(gone)
        kept = [i for i in range(50) if i not in gone]
        probe = vectors[7]
        answer = store.search(probe, [scope()], 200)
        expected = brute_force([records[i] for i in kept], vectors[kept], probe, 200)
        assert [hit.reference.reference_id for hit in answer.hits] == [reference_id for reference_id, _ in expected]
        assert answer.compared == 45

    def test_a_second_withdrawal_counts_nothing(self, store: GalleryStore) -> None:
        store.put(records_of(2), vectors_of(2))
        assert store.withdraw([record_of(0).reference_id], [2]) == 1
        assert store.withdraw([record_of(0).reference_id], [2]) == 0
        assert store.withdraw(["never seen"], [1]) == 0

    @pytest.mark.parametrize("version", [1, 2])
    def test_a_late_insert_stays_out(self, store: GalleryStore, version: int) -> None:
        assert store.withdraw([record_of(0).reference_id], [2]) == 0
        assert store.put([record_of(0, version=version)], vectors_of(1)).unchanged == 1
        assert dict(store.counts()) == {}

    def test_a_newer_insert_comes_back(self, store: GalleryStore) -> None:
        store.put([record_of(0, version=1)], vectors_of(1))
        store.withdraw([record_of(0).reference_id], [2])
        assert store.put([record_of(0, version=3)], vectors_of(1)).put == 1
        assert store.counts()[("custody", "northshire")] == 1

    def test_a_withdrawal_older_than_the_reference_changes_nothing(self, store: GalleryStore) -> None:
        store.put([record_of(0, version=5)], vectors_of(1))
        assert store.withdraw([record_of(0).reference_id], [4]) == 0
        assert store.counts()[("custody", "northshire")] == 1

    def test_the_last_reference_of_a_watchlist_can_go(self, store: GalleryStore) -> None:
        store.put(records_of(3), vectors_of(3))
        assert store.withdraw([record.reference_id for record in records_of(3)], [2, 2, 2]) == 3
        assert dict(store.counts()) == {}
        assert store.search(vectors_of(1)[0], [scope()], 5).compared == 0

    def test_ids_and_versions_must_pair(self, store: GalleryStore) -> None:
        with pytest.raises(ValueError, match="versions"):
            store.withdraw(["a", "b"], [1])


class TestLife:
    def test_a_search_before_opening_is_an_error(self, closed_store: GalleryStore) -> None:
        with pytest.raises(GalleryIncomplete):
            closed_store.search(vectors_of(1)[0], [scope()], 5)

    def test_opening_again_for_the_same_model_keeps_everything(self, store: GalleryStore) -> None:
        store.put(records_of(3), vectors_of(3))
        store.open(MODEL, DIMENSION)
        assert store.counts()[("custody", "northshire")] == 3

    def test_templates_of_two_models_never_meet(self, store: GalleryStore) -> None:
        store.put(records_of(3), vectors_of(3))
        with pytest.raises(ModelMismatch):
            store.open("another model", DIMENSION)

    @pytest.mark.parametrize(
        "probe",
        [np.zeros(DIMENSION, np.float32), np.full(DIMENSION, np.nan, np.float32), vectors_of(1)[0][:64]],
        ids=["zero", "nan", "wrong dimension"],
    )
    def test_a_bad_probe_is_refused(self, store: GalleryStore, probe: npt.NDArray[np.float32]) -> None:
        store.put(records_of(3), vectors_of(3))
        with pytest.raises(ValueError, match="vectors must"):
            store.search(probe, [scope()], 5)

    def test_it_says_what_it_is(self, store: GalleryStore) -> None:
        assert store.name


class TestConcurrency:
    def test_searches_while_one_thread_writes(self, store: GalleryStore) -> None:
        """Untouched references are found in every search, and no hit is ever a mixture of two references."""
        stays, vectors = records_of(200), vectors_of(200)
        store.put(stays, vectors)
        of_id = {record.reference_id: vectors[i] for i, record in enumerate(stays)}
        comes, coming = records_of(300, 1000), vectors_of(300, seed=5)
        of_id |= {record.reference_id: coming[i] for i, record in enumerate(comes)}
        finished = threading.Event()

        def write() -> None:
            try:
                for turn in range(1, 6):
                    for start in range(0, 300, 50):
                        batch = [replace(record, version=2 * turn) for record in comes[start : start + 50]]
                        assert store.put(batch, coming[start : start + 50]).put == 50
                    ids = [record.reference_id for record in comes]
                    assert store.withdraw(ids, [2 * turn + 1] * 300) == 300
            finally:
                finished.set()

        def search(seed: int) -> int:
            searches = 0
            while not finished.is_set() or searches < 3:
                probe = vectors_of(200)[(seed + searches) % 200]
                answer = store.search(probe, [scope()], 500)
                found = {hit.reference.reference_id for hit in answer.hits}
                assert found.issuperset(record.reference_id for record in stays)
                assert len(found) == len(answer.hits) == answer.compared
                for hit in answer.hits:
                    assert hit.score == pytest.approx(float(of_id[hit.reference.reference_id] @ probe), abs=1e-5)
                searches += 1
            return searches

        with ThreadPoolExecutor(5) as pool:
            writer = pool.submit(write)
            searchers = [pool.submit(search, seed) for seed in range(4)]
            writer.result(timeout=PATIENCE_S)
            assert all(searcher.result(timeout=PATIENCE_S) >= 3 for searcher in searchers)
        assert store.counts()[("custody", "northshire")] == 200
