"""Two models side by side: which one answers, and that a template never meets the gallery of the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from services.rpc.v1 import ingest_pb2, migration_pb2
from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.ports import SearchScope
from services.search.serving.gallery import ServedEmbed, ServedGallery
from services.search.serving.lanes import Lane, LaneLedger, ModelLanes
from services.search.upkeep.keeper import GalleryKeeper, GalleryState
from services.shared.biometric import ModelProvenance
from services.shared.errors import DependencyUnavailable, GalleryIncomplete, LikenessError, ModelMismatch
from services.shared.telemetry import Metrics
from tests.integration.search.peers import Reference, batch_of, provenance, vector_of

OLD, NEW = "model-old", "model-new"
CUSTODY = (SearchScope("custody", frozenset({"northshire"})),)
ANN = Reference("r-ann", "ANN", vector_of("ann"))


class FakeEmbed(ServedEmbed):
    """Describes itself; templates are not asked for here."""

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id
        self.is_away = False

    def describe_model(self, *, timeout_s: float = 2.0) -> ModelProvenance:
        if self.is_away:
            raise DependencyUnavailable("embed does not answer.")
        return provenance(self.model_id)


class FakeIngest:
    """What ingest says of the migration, and its references by model."""

    def __init__(self) -> None:
        self.view = migration_pb2.ModelMigration()
        self.references: dict[str, list[Reference]] = {OLD: [ANN], NEW: [ANN]}
        self.is_away = False

    def describe(self) -> migration_pb2.ModelMigration:
        if self.is_away:
            raise DependencyUnavailable("ingest does not answer.")
        return self.view

    def read_references(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        yield of_model(model_id, *self.references[model_id])

    def count(self) -> ingest_pb2.LedgerCounts:
        return ingest_pb2.LedgerCounts()

    def move_to(self, state: str, *, serving: str) -> None:
        self.view = migration_pb2.ModelMigration(
            migration_id="m-1",
            state=state,
            from_model_id=OLD,
            to_model_id=NEW,
            serving_model_id=serving,
            is_shadowing=state in {"shadowing", "approved", "switched"},
        )


def of_model(model_id: str, *references: Reference) -> ingest_pb2.ReferenceBatch:
    batch = batch_of(list(references))
    batch.model_id = model_id
    return batch


class Setup:
    def __init__(self) -> None:
        self.ingest = FakeIngest()
        self.embeds = FakeEmbed(OLD), FakeEmbed(NEW)
        self.lanes = ModelLanes(
            [self._lane("first", self.embeds[0]), self._lane("second", self.embeds[1])],
            self.ingest,
            Metrics(CollectorRegistry()),
        )
        self.gallery = ServedGallery(self.lanes)

    def _lane(self, name: str, embed: FakeEmbed) -> Lane:
        ledger = LaneLedger(self.ingest, self.ingest)

        def make(_model_id: str) -> GalleryKeeper:
            return GalleryKeeper(ExactGalleryStore(), embed, ledger, Metrics(CollectorRegistry()))

        return Lane(name, embed, make)

    def found(self, model_id: str) -> list[str]:
        answer = self.gallery.of(model_id).search(model_id, vector_of("ann"), CUSTODY, 10)
        return [hit.reference.reference_id for hit in answer.hits]


@pytest.fixture
def setup() -> Setup:
    made = Setup()
    made.gallery.tend()
    return made


def serving(setup: Setup) -> str:
    return setup.gallery.require_ready().model_id


def test_without_a_migration_the_first_embed_s_model_answers_and_no_other_gallery_is_loaded(setup: Setup) -> None:
    assert serving(setup) == OLD
    assert setup.lanes.of(NEW) is None
    with pytest.raises(ModelMismatch):
        setup.gallery.of(NEW)


def test_until_ingest_has_said_which_model_is_in_service_nothing_is_searched() -> None:
    setup = Setup()
    setup.ingest.is_away = True
    setup.gallery.tend()
    assert setup.gallery.state is GalleryState.LOADING
    assert "not known yet" in setup.gallery.waiting_for()["gallery"]
    with pytest.raises(GalleryIncomplete):
        setup.gallery.require_ready()
    setup.ingest.is_away = False
    setup.gallery.tend()
    assert serving(setup) == OLD


def test_a_switch_and_a_rollback_are_followed_at_the_next_turn(setup: Setup) -> None:
    for state, model_id in (("shadowing", OLD), ("switched", NEW), ("shadowing", OLD), ("finished", NEW)):
        setup.ingest.move_to(state, serving=model_id)
        setup.gallery.tend()
        assert serving(setup) == model_id
        # Both stay: a search that began before the switch ends with the gallery of its own template.
        assert setup.found(OLD) == setup.found(NEW) == ["r-ann"]


def test_while_ingest_is_away_the_model_in_service_stays(setup: Setup) -> None:
    setup.ingest.move_to("switched", serving=NEW)
    setup.gallery.tend()
    setup.ingest.is_away = True
    setup.gallery.tend()
    assert serving(setup) == NEW


def test_after_a_restart_with_the_former_model_alone_nothing_is_searched() -> None:
    setup = Setup()
    setup.ingest.move_to("switched", serving=NEW)
    setup.embeds[1].is_away = True
    setup.gallery.tend()
    with pytest.raises(ModelMismatch):
        setup.gallery.require_ready()
    setup.embeds[1].is_away = False
    setup.gallery.tend()
    assert serving(setup) == NEW


def test_a_template_never_meets_the_gallery_of_another_model(setup: Setup) -> None:
    """At every door: a probe's, a new reference's, a loaded ledger's, a shadow's."""
    setup.ingest.move_to("shadowing", serving=OLD)
    setup.gallery.tend()
    old, new = setup.gallery.of(OLD), setup.gallery.of(NEW)
    for keeper, other in ((old, NEW), (new, OLD)):
        with pytest.raises(ModelMismatch):
            keeper.search(other, vector_of("ann"), CUSTODY, 10)
        with pytest.raises(ModelMismatch):
            keeper.put(of_model(other, ANN))
    for refused in (
        lambda: setup.gallery.search("model-third", vector_of("ann"), CUSTODY, 10),
        lambda: setup.gallery.put(of_model("model-third", ANN)),
        lambda: setup.gallery.of("model-third"),
    ):
        with pytest.raises(ModelMismatch):
            refused()
    # What names a model goes to that model's gallery, whichever is in service.
    bob = Reference("r-bob", "BOB", vector_of("bob"))
    setup.gallery.put(of_model(NEW, bob))
    assert setup.found(OLD) == ["r-ann"]
    assert sorted(setup.found(NEW)) == ["r-ann", "r-bob"]


def test_a_withdrawal_goes_to_both(setup: Setup) -> None:
    setup.ingest.move_to("switched", serving=NEW)
    setup.gallery.tend()
    assert setup.gallery.withdraw(["r-ann"], [9]) == 1
    assert setup.found(OLD) == setup.found(NEW) == []


def test_what_was_begun_under_the_former_model_is_taken_and_changes_nothing(setup: Setup) -> None:
    setup.ingest.move_to("finished", serving=NEW)
    setup.embeds[0].model_id = "model-third"
    setup.gallery.tend()
    outcome = setup.gallery.put(of_model(OLD, ANN))
    assert (outcome.put, outcome.unchanged) == (0, 1)


def test_a_gallery_that_is_not_loaded_yet_asks_to_be_tried_again(setup: Setup) -> None:
    setup.ingest.move_to("embedding", serving=OLD)
    with pytest.raises(LikenessError) as caught:
        setup.gallery.put(of_model(NEW, ANN))
    assert not isinstance(caught.value, GalleryIncomplete)  # search has not heard of the migration yet
    setup.embeds[1].is_away = True
    setup.gallery.tend()
    # Its model was seen before, so it is wanted; its keeper cannot load while embed is away.
    with pytest.raises(GalleryIncomplete):
        setup.gallery.put(of_model(NEW, ANN))


def test_shadows_are_searched_in_the_other_model_s_gallery_alone(setup: Setup) -> None:
    assert setup.lanes.shadow_of(OLD) is None
    setup.ingest.move_to("shadowing", serving=OLD)
    setup.gallery.tend()
    for model_id, other in ((OLD, NEW), (NEW, OLD)):
        lane = setup.lanes.shadow_of(model_id)
        assert lane is not None
        assert lane.held_model_id == other
    assert setup.lanes.shadow_of("model-third") is None


def test_nothing_of_one_gallery_is_left_that_several_do_not_have() -> None:
    """A method that is added to the keeper has to say which of the galleries it means."""
    public = {name for name in vars(GalleryKeeper) if not name.startswith("_")}
    assert public <= set(vars(ServedGallery))


def test_all_templates_of_one_search_come_from_one_embed(setup: Setup) -> None:
    setup.ingest.move_to("switched", serving=NEW)
    setup.gallery.tend()
    served = ServedEmbed(setup.lanes)
    assert served.running(OLD) is setup.embeds[0]
    assert served.running(NEW) is setup.embeds[1]
    assert served.describe_model().model_id == NEW
