"""Flags: what is checked, what is raised, what is decided, and that all of it goes with an erased subject."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from services.ingest.adapters.flag_schema import erase_flags, flag_references, flags
from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.schema import ledger_sequence, metadata
from services.ingest.adapters.sql_custody import SqlCustody
from services.ingest.adapters.sql_flags import SqlFlags
from services.ingest.adapters.sql_ledger import SqlLedger
from services.ingest.adapters.template_vault import TemplateVault
from services.ingest.enrolling.enrolment import Decision, EnrolmentKey, NewEnrolment, Source, Verdict
from services.ingest.flags.checking import CheckReferences
from services.ingest.flags.deciding import DecideFlag
from services.ingest.flags.model import Flag, FlagFilter, FlagKind, FlagState
from services.ingest.flags.trail import FlagTrail
from services.ingest.life.custody import EnrolmentFacts
from services.rpc.auditing import BatchAuditRecorder
from services.rpc.open_acts import OpenActs
from services.rpc.v1 import audit_pb2, search_pb2
from services.shared.biometric import ModelProvenance
from services.shared.clock import SystemClock
from services.shared.database import create_engine
from services.shared.errors import AuditUnavailable, Conflict, DependencyUnavailable, NotFound
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal
from tests.support.open_acts import MemoryActs

MODEL = ModelProvenance("m1", "det", "d" * 64, "rec", "e" * 64, "Apache-2.0", 4, "p1", "rt 1", "CPU")
CUSTODIAN = Principal("c-1", "northshire", frozenset({"custodian"}), frozenset({"custody"}))
NOW = 1_780_000_000_000


@dataclass
class FakeAudit:
    """Keeps entries; refuses when told to."""

    entries: list[audit_pb2.AuditEntry] = field(default_factory=list)
    is_down: bool = False
    is_conflict: bool = False  # of flags, as after a crash
    appended: int = 0  # flushes

    def append(self, entry: audit_pb2.AuditEntry) -> audit_pb2.AppendResponse:
        self.append_all([entry])
        return audit_pb2.AppendResponse()

    def append_all(self, entries: Sequence[audit_pb2.AuditEntry]) -> None:
        if self.is_down:
            raise AuditUnavailable("The log cannot be written.")
        if self.is_conflict and any(entry.activity == "gallery_flag" for entry in entries):
            raise Conflict("Another entry stands under that id.")
        known = {each.entry_id for each in self.entries}
        self.entries += [entry for entry in entries if entry.entry_id not in known]
        self.appended += 1

    def of(self, activity: str) -> list[audit_pb2.Phase.ValueType]:
        return [entry.phase for entry in self.entries if entry.activity == activity]


@dataclass
class FakeGallery:
    """Answers what it was told of a reference; `own` counts how many of the subject's others came with each."""

    ids: Mapping[str, Sequence[tuple[str, str, str]]] = field(default_factory=dict)
    unlike: frozenset[str] = frozenset()
    points: str = "test-1"
    is_down: bool = False
    own: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    turns: int = 0  # questions without a reference

    def find(self, request: search_pb2.FindNeighboursRequest) -> search_pb2.FindNeighboursResponse:
        if self.is_down:
            raise DependencyUnavailable("search does not answer.")
        self.turns += not request.probes
        response = search_pb2.FindNeighboursResponse(points_version=self.points)
        for probe in request.probes:
            self.asked.append(probe.reference_id)
            self.own[probe.reference_id] = len(probe.own_vectors) // 16
            finding = response.findings.add(is_unlike_own=probe.reference_id in self.unlike)
            for reference_id, subject_id, band in self.ids.get(probe.reference_id, ()):
                finding.neighbours.add(reference_id=reference_id, subject_id=subject_id, band=band)
        return response


@dataclass
class Scene:
    """A ledger with its flags."""

    engine: sa.Engine
    committer: GroupCommitter
    ledger: SqlLedger
    store: SqlFlags
    audit: FakeAudit
    gallery: FakeGallery

    def checking(self, pending: int = 0) -> CheckReferences:
        return CheckReferences(
            store=self.store,
            neighbours=self.gallery,
            trail=self.trail,
            model_id=lambda: "m1",
            watchlists=lambda: ["custody", "sex_offenders"],
            pending=lambda: pending,
            clock=SystemClock(),
            metrics=Metrics(CollectorRegistry()),
            per_s=1000,
        )

    def check_all(self) -> None:
        """Until there is nothing new."""
        checking = self.checking()
        for _ in range(20):
            checking.step()

    @property
    def trail(self) -> FlagTrail:
        recorder = BatchAuditRecorder(self.audit, "ingest", SystemClock())
        return FlagTrail(recorder, OpenActs(MemoryActs(), recorder, SystemClock(), 30.0))

    @property
    def deciding(self) -> DecideFlag:
        return DecideFlag(self.store, self.trail, SystemClock())

    def open_flags(self) -> Sequence[Flag]:
        return self.store.list(FlagFilter("northshire", frozenset({"custody"}), FlagState.OPEN))

    def accept(self, subject_id: str, source: Source = Source.REST, owner: str = "northshire") -> NewEnrolment:
        key = EnrolmentKey("custody", owner, subject_id, new_id().replace("-", "").ljust(64, "0"), "m1")
        new = NewEnrolment(
            enrolment_id=new_id(),
            reference_id=new_id(),
            key=key,
            lawful_basis="pace_1984_s64a",
            captured_on="2026-01-02",
            agreement_reference="",
            source=source,
            person_id="c-1",
            force=owner,
            accepted_at_ms=NOW,
        )
        self.ledger.accept([new])
        return new

    def settle(self, yaw: float = 100.0) -> None:
        """Everything that is pending is enrolled."""
        pending = self.ledger.claim(100, NOW, NOW + 30_000)
        template = np.array([1, 0, 0, 0], dtype="<f4").tobytes()
        decision = Decision(Verdict.ENROL, NOW, template=template, model=MODEL, quality_components={"yaw": yaw})
        decided = self.ledger.decide([(each, decision) for each in pending])
        self.ledger.settle([(each, []) for each in decided], NOW + 1)

    def enrol(self, subject_id: str, yaw: float = 100.0) -> NewEnrolment:
        new = self.accept(subject_id)
        self.settle(yaw)
        return new


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    engine = create_engine(DatabaseSettings(url=f"sqlite:///{tmp_path / 'ingest.sqlite'}"))
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(ledger_sequence).values(id=1, value=0))
    committer = GroupCommitter(engine)
    ledger = SqlLedger(engine, committer, "one")
    store = SqlFlags(engine, committer, TemplateVault())
    yield Scene(engine, committer, ledger, store, FakeAudit(), FakeGallery())
    committer.close()
    engine.dispose()


def alike(scene: Scene, new: NewEnrolment, other: NewEnrolment, band: str = "probable") -> None:
    scene.gallery.ids = {**scene.gallery.ids, new.reference_id: [(other.reference_id, other.key.subject_id, band)]}


class TestRaising:
    def test_two_subjects_alike_are_one_flag_and_nothing_is_merged(self, scene: Scene) -> None:
        first, second = scene.enrol("S1"), scene.enrol("S2")
        alike(scene, second, first, "strong")
        scene.check_all()
        [flag] = scene.open_flags()
        assert (flag.kind, flag.subject_id, flag.other_subject_id) == (FlagKind.SAME_PERSON, "S1", "S2")
        assert (flag.band, flag.points_version) == ("strong", "test-1")
        assert {each.reference_id for each in flag.references} == {first.reference_id, second.reference_id}
        for enrolment in (first, second):
            view = scene.ledger.view(enrolment.enrolment_id)
            assert view is not None
            assert (view.state, view.subject_id) == ("enrolled", enrolment.key.subject_id)

    def test_it_is_in_the_log_before_it_is_there(self, scene: Scene) -> None:
        first, second = scene.enrol("S1"), scene.enrol("S2")
        alike(scene, second, first)
        scene.check_all()
        assert scene.audit.of("gallery_flag") == [audit_pb2.DONE]
        assert scene.audit.of("flag_check") == [audit_pb2.DONE]

    def test_without_the_log_nothing_is_compared(self, scene: Scene) -> None:
        scene.enrol("S1")
        scene.audit.is_down = True
        with pytest.raises(AuditUnavailable):
            scene.checking().step()
        assert not scene.gallery.asked
        scene.audit.is_down = False
        scene.check_all()
        assert len(scene.gallery.asked) == 1

    def test_a_gallery_that_is_away_fills_no_log(self, scene: Scene) -> None:
        scene.enrol("S1")
        scene.gallery.is_down = True
        for _ in range(3):
            with pytest.raises(DependencyUnavailable):
                scene.checking().step()
        assert scene.audit.entries == []

    def test_without_points_for_the_model_nothing_is_compared_and_nothing_passed_over(self, scene: Scene) -> None:
        scene.enrol("S1")
        scene.gallery.points = ""
        assert scene.checking().step() >= 30
        assert scene.audit.entries == []
        scene.gallery.points = "test-2"
        scene.check_all()
        assert len(scene.gallery.asked) == 1

    def test_a_second_image_joins_the_flag_of_its_subjects(self, scene: Scene) -> None:
        first, second = scene.enrol("S1"), scene.enrol("S2")
        alike(scene, second, first)
        scene.check_all()
        third = scene.enrol("S2")
        alike(scene, third, first, "near_identical")
        scene.check_all()
        [flag] = scene.open_flags()
        assert len(flag.references) == 3
        assert flag.band == "near_identical"

    def test_what_is_found_from_both_sides_is_one_flag_with_all_its_images(self, scene: Scene) -> None:
        first, second, third = scene.enrol("S1"), scene.enrol("S2"), scene.enrol("S2")
        alike(scene, first, second)
        alike(scene, second, first)
        alike(scene, third, first, "strong")
        scene.checking().step()
        [flag] = scene.open_flags()
        assert flag.band == "strong"
        assert {each.reference_id for each in flag.references} == {each.reference_id for each in (first, second, third)}
        assert scene.audit.of("gallery_flag") == [audit_pb2.DONE]

    def test_many_flags_of_one_image_share_their_flushes_and_ask_for_their_turn(self, scene: Scene) -> None:
        others = [scene.enrol(f"S{number}") for number in range(40)]
        scene.check_all()
        new, appended, asked = scene.enrol("NEW"), scene.audit.appended, scene.gallery.turns
        scene.gallery.ids = {
            new.reference_id: [(each.reference_id, each.key.subject_id, "probable") for each in others]
        }
        scene.checking().step()
        assert len(scene.open_flags()) == len(scene.audit.of("gallery_flag")) == 40
        assert scene.audit.appended - appended == 3, "the comparison, 32 flags, 8 flags"
        assert scene.gallery.turns - asked == 3, "before each of them"

    def test_an_entry_that_stands_in_the_log_since_before_a_crash_is_kept(self, scene: Scene) -> None:
        first, second = scene.enrol("S1"), scene.enrol("S2")
        alike(scene, second, first)
        scene.audit.is_conflict = True
        scene.check_all()
        assert len(scene.open_flags()) == 1

    def test_one_picture_twice_under_one_subject_is_a_duplicate(self, scene: Scene) -> None:
        first, second = scene.enrol("S1"), scene.enrol("S1")
        alike(scene, second, first, "near_identical")
        alike(scene, first, second, "near_identical")
        scene.check_all()
        [flag] = scene.open_flags()
        assert (flag.kind, flag.other_subject_id) == (FlagKind.DUPLICATE, "")

    def test_an_image_unlike_its_subjects_others(self, scene: Scene) -> None:
        scene.enrol("S1")
        odd = scene.enrol("S1")
        scene.gallery.unlike = frozenset({odd.reference_id})
        scene.check_all()
        [flag] = scene.open_flags()
        assert (flag.kind, flag.band) == (FlagKind.WRONG_SUBJECT, "unlike")
        assert scene.gallery.own[odd.reference_id] == 1

    def test_a_face_from_the_side_is_not_compared_with_its_subjects_others(self, scene: Scene) -> None:
        scene.enrol("S1")
        turned = scene.enrol("S1", yaw=20.0)
        profile = scene.accept("S1")
        facts = EnrolmentFacts(profile.enrolment_id, "", "", None, "", "left_profile", "")
        SqlCustody(scene.engine, scene.committer).note_image(facts)
        scene.settle()
        frontal = scene.enrol("S1")
        scene.check_all()
        assert scene.gallery.own[turned.reference_id] == 0
        assert scene.gallery.own[profile.reference_id] == 0
        assert scene.gallery.own[frontal.reference_id] == 1, "only the other frontal one"

    def test_what_the_ledger_does_not_have_enrolled_is_not_flagged(self, scene: Scene) -> None:
        new = scene.enrol("S1")
        stranger = scene.accept("S9", owner="eastmoor")
        scene.settle()
        scene.gallery.ids = {new.reference_id: [(stranger.reference_id, "S9", "strong"), (new_id(), "S3", "strong")]}
        scene.check_all()
        assert scene.open_flags() == []


class TestProgress:
    def test_it_goes_on_where_it_was_and_checks_each_once(self, scene: Scene) -> None:
        made = [scene.enrol(f"S{number}") for number in range(20)]
        scene.checking().step()
        assert len(scene.gallery.asked) == 16
        scene.check_all()  # as another process after a restart
        assert sorted(scene.gallery.asked) == sorted(each.reference_id for each in made)

    def test_what_settles_late_is_not_passed_over(self, scene: Scene) -> None:
        late = scene.accept("S1")
        early = scene.accept("S2")
        pending = {each.enrolment_id: each for each in scene.ledger.claim(100, NOW, NOW + 1)}
        template = np.array([1, 0, 0, 0], dtype="<f4").tobytes()
        decision = Decision(Verdict.ENROL, NOW, template=template, model=MODEL)
        for new in (early, late):
            [decided] = scene.ledger.decide([(pending[new.enrolment_id], decision)])
            scene.ledger.settle([(decided, [])], NOW + 1)
            scene.check_all()
        assert scene.gallery.asked == [late.reference_id, early.reference_id]

    def test_while_many_wait_to_be_enrolled_it_rests(self, scene: Scene) -> None:
        scene.enrol("S1")
        assert scene.checking(pending=1000).step() > 0
        assert not scene.gallery.asked

    def test_started_again_it_raises_nothing_twice(self, scene: Scene) -> None:
        first, second = scene.enrol("S1"), scene.enrol("S2")
        alike(scene, second, first)
        scene.check_all()
        scene.store.start_again(frozenset({"custody"}))
        scene.check_all()
        assert len(scene.gallery.asked) == 4
        assert len(scene.open_flags()) == 1


class TestDeciding:
    def raised(self, scene: Scene) -> Flag:
        first, second = scene.enrol("S1"), scene.enrol("S2")
        alike(scene, second, first)
        scene.check_all()
        [flag] = scene.open_flags()
        return flag

    def test_a_decision_stands_with_who_and_why(self, scene: Scene) -> None:
        flag = self.raised(scene)
        decided = scene.deciding.decide(flag.flag_id, FlagState.DISMISSED, "twins", CUSTODIAN)
        assert (decided.state, decided.decided_by, decided.reason) == (FlagState.DISMISSED, "c-1", "twins")
        assert scene.audit.of("flag_decision") == [audit_pb2.INTENT, audit_pb2.DONE]

    def test_of_two_one_wins(self, scene: Scene) -> None:
        flag = self.raised(scene)
        scene.deciding.decide(flag.flag_id, FlagState.ACTED, "merged", CUSTODIAN)
        with pytest.raises(Conflict):
            scene.deciding.decide(flag.flag_id, FlagState.DISMISSED, "twins", CUSTODIAN)
        assert scene.audit.of("flag_decision")[-1] == audit_pb2.REFUSED

    def test_what_was_dismissed_is_not_flagged_again(self, scene: Scene) -> None:
        flag = self.raised(scene)
        scene.deciding.decide(flag.flag_id, FlagState.DISMISSED, "twins", CUSTODIAN)
        further = scene.enrol("S2")
        scene.gallery.ids = {
            **scene.gallery.ids,
            further.reference_id: scene.gallery.ids[flag.references[1].reference_id],
        }
        scene.check_all()
        assert scene.open_flags() == []

    @pytest.mark.parametrize(
        "stranger",
        [
            Principal("c-2", "eastmoor", frozenset({"custodian"}), frozenset({"custody"})),
            Principal("c-3", "northshire", frozenset({"custodian"}), frozenset({"sex_offenders"})),
        ],
    )
    def test_another_force_and_another_watchlist_find_nothing(self, scene: Scene, stranger: Principal) -> None:
        flag = self.raised(scene)
        with pytest.raises(NotFound):
            scene.deciding.decide(flag.flag_id, FlagState.DISMISSED, "x", stranger)

    def test_without_the_log_nothing_is_decided(self, scene: Scene) -> None:
        flag = self.raised(scene)
        scene.audit.is_down = True
        with pytest.raises(AuditUnavailable):
            scene.deciding.decide(flag.flag_id, FlagState.DISMISSED, "twins", CUSTODIAN)
        assert len(scene.open_flags()) == 1


class TestTheEnd:
    def test_a_flag_lapses_with_its_reference(self, scene: Scene) -> None:
        first, second = scene.enrol("S1"), scene.enrol("S2")
        alike(scene, second, first)
        scene.check_all()
        scene.ledger.withdraw(first.enrolment_id, "c-1", "mistake", NOW)
        assert scene.store.lapse(NOW) == 1
        assert scene.open_flags() == []

    def test_nothing_of_an_erased_subject_is_left(self, scene: Scene) -> None:
        first, second, third = scene.enrol("S1"), scene.enrol("S2"), scene.enrol("S3")
        alike(scene, second, first)
        alike(scene, third, second)
        scene.check_all()
        assert len(scene.open_flags()) == 2
        scene.committer.run(lambda connection: erase_flags(connection, [first.enrolment_id], ("northshire", "S1")))
        with scene.engine.connect() as connection:
            rows = [*connection.execute(sa.select(flags)), *connection.execute(sa.select(flag_references))]
        assert rows
        assert not any("S1" in row or first.enrolment_id in row for row in rows)
