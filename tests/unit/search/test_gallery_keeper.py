from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.ports import GalleryAnswer, GalleryHit, GalleryStore, ReferenceRecord, SearchScope
from services.search.upkeep.columns import records_of
from services.search.upkeep.keeper import GalleryKeeper, GalleryState
from services.shared.biometric import Vector
from services.shared.errors import DependencyUnavailable, GalleryIncomplete, InvalidRequest, ModelMismatch
from services.shared.telemetry import Metrics
from tests.integration.search.peers import MODEL_ID, Reference, batch_of, provenance, vector_of
from tests.unit.search.fakes import FakeLedgerSource, FakeModels, PersistentGalleryStore

CUSTODY = (SearchScope("custody", frozenset({"northshire"})),)
ANN, BOB = Reference("r-ann", "ANN", vector_of("ann")), Reference("r-bob", "BOB", vector_of("bob"))


class Setup:
    def __init__(self, ledger: FakeLedgerSource, store: GalleryStore | None = None) -> None:
        self.models = FakeModels()
        self.ledger = ledger
        self.registry = CollectorRegistry()
        self.keeper = GalleryKeeper(store or ExactGalleryStore(), self.models, ledger, Metrics(self.registry))

    def found(self, limit: int = 10) -> list[str]:
        answer = self.keeper.search(MODEL_ID, vector_of("ann"), CUSTODY, limit)
        return [hit.reference.reference_id for hit in answer.hits]


def test_it_loads_from_the_ledger_and_counts() -> None:
    setup = Setup(FakeLedgerSource(batch_of([ANN]), batch_of([BOB])))
    assert setup.keeper.waiting_for()
    with pytest.raises(GalleryIncomplete):
        setup.found()
    setup.keeper.tend()
    assert setup.keeper.state is GalleryState.READY
    assert setup.keeper.waiting_for() == {}
    assert setup.found() == ["r-ann", "r-bob"]
    gauge = setup.registry.get_sample_value("likeness_search_gallery_references", {"watchlist": "custody"})
    assert gauge == 2
    assert setup.keeper.owners("custody") == {"northshire"}


def test_while_embed_or_ingest_does_not_answer_it_waits_and_says_for_what() -> None:
    setup = Setup(FakeLedgerSource(batch_of([ANN])))
    setup.models.error = DependencyUnavailable("embed does not answer (UNAVAILABLE).")
    setup.keeper.tend()
    assert "embed does not answer" in setup.keeper.waiting_for()["gallery"]
    with pytest.raises(GalleryIncomplete):
        setup.keeper.put(batch_of([BOB]))
    with pytest.raises(GalleryIncomplete):
        setup.keeper.withdraw(["r-bob"], [1])
    setup.models.error = None
    setup.ledger.error = DependencyUnavailable("ingest does not answer (UNAVAILABLE).")
    setup.keeper.tend()
    assert "ingest does not answer" in setup.keeper.waiting_for()["gallery"]
    with pytest.raises(GalleryIncomplete):
        setup.found()
    setup.ledger.error = None
    setup.keeper.tend()
    assert setup.found() == ["r-ann"]


def test_what_arrives_while_it_loads_is_neither_lost_nor_overwritten() -> None:
    keeper: list[GalleryKeeper] = []

    def meanwhile() -> None:
        newer = Reference("r-ann", "ANNA", vector_of("anna"), version=3)
        keeper[0].put(batch_of([newer, Reference("r-new", "NEW", vector_of("new"))]))
        keeper[0].withdraw(["r-bob"], [2])

    setup = Setup(FakeLedgerSource(meanwhile, batch_of([ANN]), batch_of([BOB])))
    keeper.append(setup.keeper)
    setup.keeper.tend()
    answer = setup.keeper.search(MODEL_ID, vector_of("anna"), CUSTODY, 10)
    assert {hit.reference.subject_id for hit in answer.hits} == {"ANNA", "NEW"}


def test_when_embed_runs_another_model_nothing_is_searched_until_it_runs_this_one_again() -> None:
    setup = Setup(FakeLedgerSource(batch_of([ANN])))
    setup.keeper.tend()
    with pytest.raises(ModelMismatch):
        setup.keeper.search("another-model", vector_of("ann"), CUSTODY, 10)
    setup.models.model = provenance("another-model")
    setup.keeper.tend()
    assert setup.keeper.state is GalleryState.MISMATCH
    with pytest.raises(ModelMismatch):
        setup.keeper.require_ready()
    setup.models.model = provenance()
    setup.keeper.tend()
    assert setup.found() == ["r-ann"]


def test_embed_being_away_does_not_close_a_gallery_that_is_whole() -> None:
    setup = Setup(FakeLedgerSource(batch_of([ANN])))
    setup.keeper.tend()
    setup.models.error = DependencyUnavailable("embed does not answer.")
    setup.keeper.tend()
    assert setup.found() == ["r-ann"]


def test_a_ledger_of_another_model_is_a_mismatch_and_not_an_empty_gallery() -> None:
    setup = Setup(FakeLedgerSource())
    setup.ledger.error = ModelMismatch("The ledger holds templates of old-model.", advice="Re-enrol.")
    setup.keeper.tend()
    with pytest.raises(ModelMismatch, match="old-model"):
        setup.keeper.require_ready()


def test_a_store_that_kept_its_references_is_not_filled_again() -> None:
    store = PersistentGalleryStore()
    store.open(MODEL_ID, 128)
    store.put(*records_of(batch_of([ANN])))
    setup = Setup(FakeLedgerSource(batch_of([BOB])), store)
    setup.ledger.counts.watchlists.add(watchlist_id="custody", enrolled=1, refused=5)
    setup.keeper.tend()
    assert setup.found() == ["r-ann"]


def test_a_store_that_has_fewer_than_the_ledger_is_filled_before_it_is_searched() -> None:
    """A new server, one restored from an old copy, or one that lost rows: never searched as if it were whole."""
    store = PersistentGalleryStore()
    store.open(MODEL_ID, 128)
    store.put(*records_of(batch_of([ANN])))
    setup = Setup(FakeLedgerSource(batch_of([ANN]), batch_of([BOB])), store)
    setup.ledger.counts.watchlists.add(watchlist_id="custody", enrolled=2)
    setup.keeper.tend()
    assert setup.found() == ["r-ann", "r-bob"]


@pytest.mark.parametrize("what", ["model", "dimension", "columns", "bytes", "watchlist", "not unit"])
def test_batches_that_do_not_fit_are_refused_whole(what: str) -> None:
    setup = Setup(FakeLedgerSource(batch_of([ANN])))
    setup.keeper.tend()
    batch = batch_of([BOB])
    if what == "model":
        batch.model_id = "another-model"
    elif what == "dimension":
        batch.dimension, batch.vectors = 64, batch.vectors[:256]
    elif what == "columns":
        batch.owners.append("x")
    elif what == "bytes":
        batch.vectors = batch.vectors[:-4]
    elif what == "watchlist":
        batch.watchlist_id = ""
    else:
        batch.vectors = np.zeros(128, "<f4").tobytes()
    with pytest.raises(ModelMismatch if what == "model" else InvalidRequest):
        setup.keeper.put(batch)
    with pytest.raises(InvalidRequest):
        setup.keeper.withdraw(["r-ann"], [])
    assert setup.found() == ["r-ann"]


class LyingStore(PersistentGalleryStore):
    """Answers what the test tells it to."""

    def __init__(self, answer: GalleryAnswer) -> None:
        super().__init__()
        self.answer = answer

    def search(self, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        return self.answer


def hit(score: float, owner: str = "northshire", watchlist: str = "custody") -> GalleryHit:
    return GalleryHit(ReferenceRecord("r", "s", owner, watchlist, 1, 0), score)


@pytest.mark.parametrize(
    "answer",
    [
        GalleryAnswer([hit(0.5)], compared=2),
        GalleryAnswer([], compared=1),
        GalleryAnswer([hit(float("nan"))], compared=1),
        GalleryAnswer([hit(float("inf"))], compared=1),
        GalleryAnswer([hit(36.3)], compared=1),
        GalleryAnswer([hit(0.5, owner="eastmoor")], compared=1),
        GalleryAnswer([hit(0.5, watchlist="sex_offenders")], compared=1),
    ],
    ids=["a row is missing", "all are missing", "NaN", "infinite", "no cosine", "another owner", "another watchlist"],
)
def test_an_answer_that_cannot_be_the_whole_truth_is_never_passed_on(answer: GalleryAnswer) -> None:
    """F12: a gallery that answers in part, or nonsense."""
    setup = Setup(FakeLedgerSource(), LyingStore(answer))
    setup.keeper.tend()
    with pytest.raises(GalleryIncomplete):
        setup.found()


def test_fewer_references_than_asked_for_are_whole_when_there_are_no_more() -> None:
    setup = Setup(FakeLedgerSource(), LyingStore(GalleryAnswer([hit(0.5)], compared=1)))
    setup.keeper.tend()
    assert setup.found() == ["r"]
