"""Who may move a migration, on what, and what the log has of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.ingest.migrating.embeds import Embeds
from services.ingest.migrating.governance import MigrateModel
from services.ingest.migrating.migration import MigrationState
from services.ingest.models import CurrentModel
from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenAct, OpenActs
from services.rpc.v1 import audit_pb2, embed_pb2, migration_pb2
from services.shared.biometric import ImageAnalysis, ModelProvenance
from services.shared.errors import (
    AuditUnavailable,
    Conflict,
    DependencyUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
)
from services.shared.tokens import Principal
from tests.contract.test_enrolment_ledger import MODEL, open_ledgers
from tests.contract.test_model_templates import SECOND, Side
from tests.support.open_acts import MemoryActs
from tests.unit.search.fakes import ManualClock, MemoryAudit


class FakeEmbed:
    def __init__(self, model: ModelProvenance) -> None:
        self.model = model
        self.is_away = False

    def analyse(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, *, timeout_s: float
    ) -> ImageAnalysis:
        raise AssertionError("nothing is analysed here")

    def describe_model(self) -> ModelProvenance:
        if self.is_away:
            raise DependencyUnavailable("embed does not answer")
        return self.model


class FakeSearch:
    def __init__(self) -> None:
        self.shadow_searches = 100
        self.held = {"m1": 1, "m2": 1}
        self.state = "ready"
        self.is_away = False
        self.followed = 0

    def follow(self) -> migration_pb2.ServedModels:
        if self.is_away:
            raise DependencyUnavailable("search does not answer")
        self.followed += 1
        galleries = [
            migration_pb2.ModelGallery(model_id=name, state=self.state, searchable_by_watchlist={"custody": count})
            for name, count in self.held.items()
        ]
        return migration_pb2.ServedModels(galleries=galleries)

    def shadow_report(self, migration_id: str) -> bytes:
        return json.dumps({"migration_id": migration_id, "searches": self.shadow_searches}).encode()


def administrator(name: str) -> Principal:
    return Principal(name, "northshire", frozenset({"administrator"}), frozenset())


def evidence(model_id: str = "m2", note: str = "") -> bytes:
    return json.dumps({"model": {"model_id": model_id}, "note": note}).encode()


ANN, BOB = administrator("ann"), administrator("bob")


class Scene:
    """One enrolled reference, two embeds, a log."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.search = FakeSearch()
        self.audit = MemoryAudit()
        self.embeds = FakeEmbed(MODEL), FakeEmbed(SECOND)
        embeds = Embeds(self.embeds)
        clock = ManualClock()
        self.migrate = MigrateModel(
            migrations=side.migrations,
            templates=side.templates,
            embeds=embeds,
            model=CurrentModel(embeds.first, side.ledgers.ledger),
            served=self.search,
            acts=OpenActs(MemoryActs(), AuditRecorder(self.audit, "ingest", clock), clock, 30.0),
            clock=clock,
            min_shadow_searches=50,
        )
        self.reference = side.enrolled("a" * 64)

    def embedded(self) -> str:
        """A migration with nothing left to embed; its id."""
        started = self.migrate.start(ANN, "better")
        self.side.make(self.reference)
        self.side.templates.note_put([self.reference], "m2")
        self.migrate.note_embedded()
        return started.migration_id

    def approved(self) -> str:
        migration_id = self.embedded()
        for person in (ANN, BOB):
            self.migrate.approve(migration_id, person, evidence(), 0)
        return migration_id

    def state(self, migration_id: str) -> MigrationState:
        return self.migrate.find(migration_id).state

    def begun(self) -> list[OpenAct]:
        """What the intents in the log say, as a killed process leaves it."""
        intents = [entry for entry in self.audit.entries.values() if entry.phase == audit_pb2.INTENT]
        return [
            OpenAct(
                entry.activity,
                entry.operation,
                Principal(entry.actor.person_id, entry.actor.force, frozenset(), frozenset()),
                list(entry.objects),
                dict(entry.details),
            )
            for entry in intents
        ]

    def logged(self) -> list[tuple[str, str]]:
        return [(entry.details["step"], audit_pb2.Phase.Name(entry.phase)) for entry in self.audit.entries.values()]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    for ledgers in open_ledgers(f"sqlite:///{tmp_path / 'ingest.sqlite'}"):
        side = Side(ledgers)
        yield Scene(side)
        side.committer.close()


def test_from_start_to_finish(scene: Scene) -> None:
    migration_id = scene.approved()
    assert scene.migrate.switch(migration_id, ANN).serving_model_id == "m2"
    finished, moved = scene.migrate.finish(migration_id, ANN)
    assert (finished.state, moved) == (MigrationState.FINISHED, 1)
    steps = ["start", "embedded", "approve", "approve", "switch", "finish"]
    assert scene.logged() == [(step, phase) for step in steps for phase in ("INTENT", "DONE")]
    assert [step.name for step in scene.migrate.find(migration_id).steps] == steps


def test_without_a_second_model_nothing_is_started(scene: Scene) -> None:
    scene.embeds[1].is_away = True
    with pytest.raises(Conflict) as caught:
        scene.migrate.start(ANN, "better")
    assert caught.value.code == "no_candidate"
    scene.embeds[1].is_away = False
    with pytest.raises(InvalidRequest):
        scene.migrate.start(ANN, " ")
    scene.migrate.start(ANN, "better")
    with pytest.raises(Conflict):
        scene.migrate.start(ANN, "another")
    with pytest.raises(NotFound):
        scene.migrate.find("nothing")


def test_two_people_approve_on_one_evidence_of_the_candidate(scene: Scene) -> None:
    migration_id = scene.embedded()
    for wrong in (evidence("m1"), b"{}", b"not json", b"[]", b"\xff"):
        with pytest.raises(InvalidRequest):
            scene.migrate.approve(migration_id, ANN, wrong, 0)
    assert scene.migrate.approve(migration_id, ANN, evidence(), 0).state is MigrationState.SHADOWING
    with pytest.raises(Forbidden):
        scene.migrate.approve(migration_id, ANN, evidence(), 0)
    with pytest.raises(Conflict) as caught:
        scene.migrate.approve(migration_id, BOB, evidence(note="another run"), 0)
    assert caught.value.code == "evidence_differs"
    with pytest.raises(Conflict):
        scene.migrate.switch(migration_id, ANN)
    approved = scene.migrate.approve(migration_id, BOB, evidence(), 0)
    assert approved.state is MigrationState.APPROVED
    sha256 = approved.approvals[0].evidence_sha256
    assert scene.side.migrations.evidence(migration_id, sha256) == evidence().decode()


def test_losses_are_accepted_by_their_number_and_more_of_them_void_what_was_agreed(scene: Scene) -> None:
    migration_id = scene.embedded()
    scene.migrate.approve(migration_id, ANN, evidence(), 0)
    lost = scene.side.enrolled("b" * 64, "S2")
    with pytest.raises(Conflict) as caught:
        scene.migrate.approve(migration_id, BOB, evidence(), 0)
    assert caught.value.code == "migration_incomplete"
    scene.side.make(lost, lost="no_face_found")
    with pytest.raises(Conflict) as caught:
        scene.migrate.approve(migration_id, BOB, evidence(), 0)
    assert caught.value.code == "losses_differ"
    # Ann agreed to lose nobody: her word does not count for one lost.
    assert len(scene.migrate.approve(migration_id, BOB, evidence(), 1).approvals) == 1
    scene.migrate.approve(migration_id, ANN, evidence(), 1)
    scene.search.held = {"m1": 2, "m2": 1}
    scene.migrate.switch(migration_id, ANN)


def test_a_loss_after_the_approval_keeps_the_switch_from_happening(scene: Scene) -> None:
    migration_id = scene.approved()
    lost = scene.side.enrolled("b" * 64, "S2")
    scene.side.make(lost, lost="no_face_found")
    with pytest.raises(Conflict) as caught:
        scene.migrate.switch(migration_id, ANN)
    assert caught.value.code == "losses_differ"
    # The way on: the approvals are taken back, and given anew for what is lost now.
    assert scene.migrate.rollback(migration_id, ANN, "one more is lost").state is MigrationState.SHADOWING


def test_nobody_approves_without_shadow_searches(scene: Scene) -> None:
    migration_id = scene.embedded()
    scene.search.shadow_searches = 49
    with pytest.raises(Conflict) as caught:
        scene.migrate.approve(migration_id, ANN, evidence(), 0)
    assert caught.value.code == "too_few_shadow_searches"


@pytest.mark.parametrize("gallery", ["loading", "short", "absent"])
def test_a_gallery_that_is_not_whole_is_not_switched_to(scene: Scene, gallery: str) -> None:
    migration_id = scene.approved()
    if gallery == "loading":
        scene.search.state = "loading"
    elif gallery == "short":
        scene.search.held = {"m1": 1, "m2": 0}
    else:
        del scene.search.held["m2"]
    with pytest.raises(Conflict) as caught:
        scene.migrate.switch(migration_id, ANN)
    assert caught.value.code == "gallery_not_ready"
    assert scene.state(migration_id) is MigrationState.APPROVED


def test_a_rollback_needs_search_neither_to_be_there_nor_new_approvals(scene: Scene) -> None:
    migration_id = scene.approved()
    scene.migrate.switch(migration_id, ANN)
    scene.search.is_away = True
    rolled = scene.migrate.rollback(migration_id, BOB, "officers complain")
    assert (rolled.state, rolled.serving_model_id, rolled.approvals) == (MigrationState.SHADOWING, "m1", ())
    with pytest.raises(Conflict):
        scene.migrate.switch(migration_id, ANN)


def test_a_candidate_in_service_is_not_abandoned_one_that_is_not_leaves_nothing(scene: Scene) -> None:
    migration_id = scene.approved()
    scene.migrate.switch(migration_id, ANN)
    with pytest.raises(Conflict):
        scene.migrate.abandon(migration_id, ANN, "no")
    scene.migrate.rollback(migration_id, ANN, "no")
    scene.migrate.abandon(migration_id, ANN, "no")
    assert scene.side.templates.progress("m2").embedded == 0
    with pytest.raises(Conflict):
        scene.migrate.finish(migration_id, ANN)


def test_a_step_that_was_cut_short_is_settled_by_the_steps_that_the_ledger_has(scene: Scene) -> None:
    migration_id = scene.approved()
    scene.migrate.switch(migration_id, ANN)
    scene.migrate.rollback(migration_id, ANN, "no")
    acts = scene.begun()
    assert [act.details["step"] for act in acts] == ["start", "embedded", "approve", "approve", "switch", "rollback"]
    assert {scene.migrate.settle(act).took_effect for act in acts} == {True}
    for act in acts:  # the same once more: its intent was written, and then the process was killed
        later = replace(act, details={**act.details, "steps_before": str(len(acts))})
        by_another = replace(act, principal=administrator("eve"))
        of_none = replace(act, objects=["migration:none"])
        assert {scene.migrate.settle(one).took_effect for one in (later, by_another, of_none)} == {False}
    before_there_were_counts = replace(acts[0], details={"step": "start"})
    retry = replace(acts[0], details={"step": "retry_losses", "steps_before": "1"})
    assert [scene.migrate.settle(one).took_effect for one in (before_there_were_counts, retry)] == [None, None]


def test_what_a_cut_short_abandoning_left_goes_when_it_is_settled(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration_id = scene.embedded()

    def killed(model_id: str) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(scene.side.templates, "forget", killed)
        scene.migrate.abandon(migration_id, ANN, "no")
    act = scene.begun()[-1]
    assert scene.side.templates.progress("m2").embedded == 1
    assert scene.migrate.settle(act).took_effect
    assert scene.side.templates.progress("m2").embedded == 0
    scene.embedded()
    assert scene.migrate.settle(act).took_effect
    assert scene.side.templates.progress("m2").embedded == 1, "those of a migration that is open stay"


def test_what_the_log_does_not_take_is_not_done(scene: Scene) -> None:
    migration_id = scene.approved()
    scene.audit.is_down = True
    with pytest.raises(AuditUnavailable):
        scene.migrate.switch(migration_id, ANN)
    assert scene.state(migration_id) is MigrationState.APPROVED


def test_the_report_says_what_it_lacks_while_search_is_away(scene: Scene) -> None:
    migration_id = scene.embedded()
    scene.search.is_away = True
    report = scene.migrate.report(migration_id)
    assert report.problem == "search does not answer"
    assert report.progress.is_complete
