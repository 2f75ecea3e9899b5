"""Templates of a second model beside the ledger's own, from the first image looked at to the end of a migration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.sql_migrations import LOST_TO_THE_MODEL, SqlMigrations
from services.ingest.adapters.sql_model_templates import SqlBaseReferences, SqlModelReferences, SqlModelTemplates
from services.ingest.enrolling.enrolment import EnrolmentState, Verdict
from services.ingest.migrating.migration import MigrationState, ModelMigration, OtherTemplate, Progress
from services.shared.errors import Conflict, ModelMismatch
from services.shared.ids import new_id
from tests.contract.test_enrolment_ledger import LATER, MODEL, Ledgers, accept, claim, enrol, new, open_ledgers

SECOND = replace(MODEL, model_id="m2", recogniser="better")
OTHER = np.array([0, 1, 0, 0], dtype="<f4").tobytes()


class Side:
    """The ledger and what stands beside it."""

    def __init__(self, ledgers: Ledgers) -> None:
        self.ledgers = ledgers
        self.committer = GroupCommitter(ledgers.engine)
        self.templates = SqlModelTemplates(ledgers.engine, self.committer)
        self.migrations = SqlMigrations(ledgers.engine, self.committer)
        self.references = SqlModelReferences(ledgers.references, self.templates)

    def enrolled(self, image: str, subject: str = "S1") -> str:
        """One enrolled reference of the first model; its enrolment_id."""
        item = new(image, subject=subject)
        accept(self.ledgers, item)
        pending = self.ledgers.ledger.decide([(each, enrol()) for each in claim(self.ledgers.ledger)])
        self.ledgers.ledger.settle([(each, []) for each in pending], LATER)
        return item.enrolment_id

    def make(self, *enrolment_ids: str, lost: str = "") -> None:
        missing = {each.enrolment_id: each for each in self.templates.without("m2", "", 100)}
        self.templates.keep(
            [
                OtherTemplate(each, missing[each].key.image_sha256, SECOND, b"" if lost else OTHER, loss_reason=lost)
                for each in enrolment_ids
            ],
            LATER,
        )

    def vectors(self, model_id: str) -> dict[str, bytes]:
        """Templates by reference_id as a gallery of that model would read them."""
        return {
            name: batch.vectors[place * 16 : place * 16 + 16]
            for batch in self.references.read(model_id)
            for place, name in enumerate(batch.reference_ids)
        }

    def migration(self, state: MigrationState = MigrationState.EMBEDDING) -> ModelMigration:
        made = ModelMigration(new_id(), "m1", "m2", state, "why")
        self.migrations.open(made)
        return made


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    for ledgers in open_ledgers(f"sqlite:///{tmp_path / 'ingest.sqlite'}"):
        made = Side(ledgers)
        yield made
        made.committer.close()


class TestModelTemplates:
    def test_what_the_second_model_has_not_looked_at_is_named_in_order_and_from_a_place_on(self, side: Side) -> None:
        side.migration()
        ids = [side.enrolled(f"{number:064d}") for number in range(3)]
        assert [each.enrolment_id for each in side.templates.without("m2", "", 2)] == ids[:2]
        assert [each.enrolment_id for each in side.templates.without("m2", ids[1], 9)] == ids[2:]
        assert side.templates.without("m1", "", 9) == []
        side.make(ids[0])
        side.make(ids[1], lost="image_missing")
        assert [each.enrolment_id for each in side.templates.without("m2", "", 9)] == ids[2:]
        assert side.templates.progress("m2") == Progress(3, 1, {"image_missing": 1}, not_in_gallery=1)
        [loss] = side.templates.losses("m2", "", 9)
        assert (loss.enrolment_id, loss.reason) == (ids[1], "image_missing")
        assert side.templates.retry_losses("m2") == 1
        assert [each.enrolment_id for each in side.templates.without("m2", "", 9)] == ids[1:]

    def test_templates_of_two_models_are_never_read_together(self, side: Side) -> None:
        side.migration()
        first, second = side.enrolled("a" * 64), side.enrolled("b" * 64, "S2")
        assert side.vectors("m2") == {}
        side.make(first)
        assert set(side.vectors("m1").values()) == {enrol().template}
        assert set(side.vectors("m2").values()) == {OTHER}
        assert len(side.vectors("m1")) == 2
        for batch in side.references.read("m2"):
            assert batch.model_id == "m2"
        with pytest.raises(ModelMismatch):
            side.vectors("m3")
        assert second in {each.enrolment_id for each in side.templates.without("m2", "", 9)}

    def test_what_is_withdrawn_has_no_template_of_any_model(self, side: Side) -> None:
        side.migration()
        gone = side.enrolled("a" * 64)
        side.make(gone)
        pending = side.templates.without("m3", "", 9)
        side.ledgers.ledger.withdraw(gone, "c-1", "no basis", LATER)
        assert side.vectors("m2") == {}
        assert side.templates.to_put("m2", None, 9) == []
        # One that was being looked at meanwhile does not come back.
        side.templates.keep([OtherTemplate(each.enrolment_id, "", SECOND, OTHER) for each in pending], LATER)
        assert side.templates.progress("m2") == Progress(0, 0)

    def test_a_template_waits_until_its_gallery_has_it(self, side: Side) -> None:
        side.migration()
        one, two = side.enrolled("a" * 64), side.enrolled("b" * 64)
        side.make(one, two)
        assert {each.enrolment_id for each in side.templates.to_put("m2", None, 9)} == {one, two}
        side.templates.note_put([one], "m2")
        assert [each.enrolment_id for each in side.templates.to_put("m2", None, 9)] == [two]
        # A reference that is settled again (its subject was merged) is put again.
        assert [each.enrolment_id for each in side.templates.to_put("m2", [one], 9)] == [one]

    def test_one_migration_is_open_and_nobody_moves_it_twice(self, side: Side) -> None:
        migration = side.migration()
        with pytest.raises(Conflict):
            side.migration()
        moved = replace(migration, state=MigrationState.SHADOWING)
        side.migrations.move(moved, only_from=MigrationState.EMBEDDING)
        with pytest.raises(Conflict):
            side.migrations.move(moved, only_from=MigrationState.EMBEDDING)
        assert side.migrations.current() == moved
        late = side.enrolled("a" * 64)
        side.migrations.move(replace(moved, state=MigrationState.ABANDONED), only_from=MigrationState.SHADOWING)
        assert side.migrations.current() is None
        side.make(late)  # what was being looked at
        assert side.templates.progress("m2").embedded == 0
        side.migration()

    def test_a_finished_migration_leaves_every_reference_under_the_new_model(self, side: Side) -> None:
        migration = side.migration(MigrationState.SWITCHED)
        kept, lost, gone = (side.enrolled(name * 64, subject=name) for name in "abc")
        refused = new("d" * 64, subject="d")
        accept(side.ledgers, refused)
        decided = side.ledgers.ledger.decide([(each, enrol(Verdict.REFUSE)) for each in claim(side.ledgers.ledger)])
        side.ledgers.ledger.settle([(each, []) for each in decided], LATER)
        side.make(kept)
        side.make(lost, lost="no_face_found")
        side.make(gone)
        side.ledgers.ledger.withdraw(gone, "c-1", "no basis", LATER)
        done = replace(migration, state=MigrationState.FINISHED)
        assert side.migrations.finish(done) == 1
        view = side.ledgers.ledger.view(kept)
        assert view is not None
        assert (view.model_id, view.state) == ("m2", EnrolmentState.ENROLLED)
        assert set(side.vectors("m2").values()) == {OTHER}
        # The former model's stand by for searches of then, of those that are still enrolled.
        assert list(side.vectors("m1").values()) == [enrol().template]
        dropped = side.ledgers.ledger.view(lost)
        assert dropped is not None
        assert (dropped.state, dropped.reason) == (EnrolmentState.QUARANTINED, LOST_TO_THE_MODEL)
        assert dropped.detail.startswith("no_face_found")
        assert side.migrations.base_model_id() == "m2"
        # Where nobody asks for a former model by intent, it is refused: search would answer with it.
        base = SqlBaseReferences(side.ledgers.references, side.templates, side.migrations)
        assert sum(len(batch.reference_ids) for batch in base.read("m2")) == 1
        with pytest.raises(ModelMismatch):
            next(base.read("m1"))
        # Nothing comes in twice, whichever model the door still believed in: not the enrolled one, the refused one,
        # the lost one, and not the one that was withdrawn.
        before = {kept, lost, gone, refused.enrolment_id}
        for model_id in ("m1", "m2"):
            again = [new(name * 64, subject=name, model_id=model_id) for name in "abcd"]
            assert {each.enrolment_id for each in accept(side.ledgers, *again)} == before

    def test_a_migration_that_stands_elsewhere_is_not_finished(self, side: Side) -> None:
        migration = side.migration(MigrationState.SHADOWING)
        side.enrolled("a" * 64)
        with pytest.raises(Conflict):
            side.migrations.finish(replace(migration, state=MigrationState.FINISHED))
        assert len(side.vectors("m1")) == 1
