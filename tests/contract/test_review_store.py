"""What the record of casework does, on every database that it may stand on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.review.adapters.schema import metadata
from services.review.adapters.sql_review_store import SqlReviewStore
from services.review.bootstrap import MIGRATIONS
from services.review.model import (
    Adjudication,
    Appearance,
    CandidateForJudgement,
    Case,
    CaseRequest,
    CaseState,
    CaseType,
    Erasure,
    Examination,
    FacialFeature,
    FeatureRemark,
    Finding,
    ImageNature,
    KnownAnswer,
    Observation,
    ProbeFile,
    ProbeImage,
    ProbeSource,
    SearchRecord,
    SearchVariant,
    Training,
    Urgency,
)
from services.review.ports import CaseFilter, OpenAct, Settlement
from services.shared.database import create_engine, migrate
from services.shared.errors import AuditUnavailable, Conflict, DependencyUnavailable
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from tests.unit.review.people import NOW

REQUEST = CaseRequest(
    "NS/1", "burglary", "prevention_and_detection", "Needed.", CaseType.SUSPECT, Urgency.URGENT, ProbeSource.CCTV,
    ImageNature.VIDEO_FRAME, "PC 1", ("custody",),
)  # fmt: skip
PROBE = ProbeImage("p-1", ProbeFile("a" * 64, 9, "PNG", 4, 4, 1), "b" * 64, 1.0, 4, 4, ())
RECORD = SearchRecord(
    "s-1", "p-1", SearchVariant.ORIGINAL, None, "a" * 64, "why", "anna", NOW, 1, "b" * 64, {"searchable": 3, "x": [1.5]}
)
CANDIDATE = CandidateForJudgement(
    "c-1", "S1", "northshire", "custody", "r-1", (Appearance("s-1", SearchVariant.ORIGINAL, 1, 0.75, "r-1"),)
)


def a_case(number: str = "2026-00001", **changes: object) -> Case:
    case = Case(
        request_id=new_id(),
        number=number,
        force="northshire",
        state=CaseState.RECEIVED,
        version=1,
        request=REQUEST,
        requested_by="officer",
        requested_at=NOW,
        due_at=NOW + timedelta(hours=1),
        updated_at=NOW,
        probes=(),
        searches=(RECORD,),
        candidates=(CANDIDATE,),
        known_answer=KnownAnswer("sue", NOW, ("northshire", "S1")),
    )
    return replace(case, **changes)  # type: ignore[arg-type]


def an_examination(case: Case, examiner: str, ordinal: int = 1) -> Examination:
    remark = FeatureRemark(FacialFeature.EARS, Observation.SIMILAR, "alike")
    judged = Adjudication("c-1", Finding.POSSIBLE_MATCH, (remark,), "Alike.", NOW, 6.5)
    return Examination(
        new_id(), case.request_id, case.force, ordinal, examiner, 0, ("c-1",), NOW, {"c-1": NOW}, (judged,)
    )


@contextmanager
def open_store_at(url: str) -> Iterator[tuple[SqlReviewStore, sa.Engine]]:
    engine = create_engine(DatabaseSettings(url=url))
    migrate(engine, MIGRATIONS)
    yield SqlReviewStore(engine), engine
    engine.dispose()


class TestReviewStore:
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[tuple[SqlReviewStore, sa.Engine]]:
        with open_store_at(f"sqlite:///{tmp_path / 'review.sqlite'}") as opened:
            yield opened

    @pytest.fixture
    def store(self, opened: tuple[SqlReviewStore, sa.Engine]) -> SqlReviewStore:
        return opened[0]

    def test_the_migrations_make_the_schema(self, opened: tuple[SqlReviewStore, sa.Engine]) -> None:
        with opened[1].connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": "review_schema_version"})
            assert compare_metadata(context, metadata) == []

    def test_what_is_stored_comes_back_as_it_was(self, store: SqlReviewStore) -> None:
        case = a_case()
        assert store.add(case) is None
        assert store.find(case.request_id) == case
        examination = an_examination(case, "anna")
        saved = store.save(replace(case, state=CaseState.IN_FIRST_REVIEW), examination)
        assert saved.version == 2
        assert store.find(case.request_id) == saved
        assert list(store.examinations(case.request_id)) == [replace(examination, version=1)]
        assert list(store.examinations_of_force("northshire")) == [replace(examination, version=1)]
        assert store.find(new_id()) is None

    def test_of_many_who_change_one_case_at_once_one_wins(self, store: SqlReviewStore) -> None:
        case = a_case()
        store.add(case)

        def change(number: int) -> Case | Conflict:
            try:
                return store.save(replace(case, state=CaseState.ACCEPTED, number=f"x{number}"))
            except Conflict as error:
                return error

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(change, range(8)))
        won = [answer for answer in answers if isinstance(answer, Case)]
        assert won == [store.find(case.request_id)]
        for lost in (answer for answer in answers if isinstance(answer, Conflict)):
            assert (lost.code, lost.context) == ("changed_meanwhile", {"state": "accepted", "version": 2})

    def test_one_first_review_and_nobody_does_both(self, store: SqlReviewStore) -> None:
        case = a_case()
        store.add(case)
        begun = store.save(case, an_examination(case, "anna"))
        for other in (an_examination(case, "bert", 1), an_examination(case, "anna", 2)):
            with pytest.raises(Conflict):
                store.save(begun, other)
        assert store.find(case.request_id) == begun  # neither moved the case on
        store.save(begun, an_examination(case, "bert", 2))
        assert [one.examiner for one in store.examinations(case.request_id)] == ["anna", "bert"]

    def test_an_examination_that_has_changed_is_not_overwritten(self, store: SqlReviewStore) -> None:
        case = a_case()
        store.add(case)
        store.save(case, an_examination(case, "anna"))
        [examination] = store.examinations(case.request_id)
        assert store.save_examination(examination).version == 2
        with pytest.raises(Conflict):
            store.save_examination(examination)

    def test_lists_are_of_one_force_the_most_pressing_first(self, store: SqlReviewStore) -> None:
        late = a_case("2026-00001", due_at=NOW + timedelta(hours=9))
        soon = a_case("2026-00002", state=CaseState.ACCEPTED, requested_by="other")
        theirs = a_case("2026-00001", force="eastmoor")
        for case in (late, soon, theirs):
            store.add(case)
        assert list(store.list(CaseFilter("northshire"))) == [soon, late]
        assert list(store.list(CaseFilter("northshire", frozenset({CaseState.ACCEPTED})))) == [soon]
        assert list(store.list(CaseFilter("northshire", requested_by="officer"))) == [late]
        assert list(store.list(CaseFilter("northshire", limit=1))) == [soon]

    def test_a_picture_is_held_by_every_case_that_has_it_until_erased(self, store: SqlReviewStore) -> None:
        first, second = a_case("2026-00001", probes=(PROBE,)), a_case("2026-00002", probes=(PROBE,), force="eastmoor")
        for case in (first, second):
            store.add(case)
        assert store.is_held_elsewhere("a" * 64, first.request_id)
        assert not store.is_held_elsewhere("c" * 64, first.request_id)
        store.save(replace(second, erasure=Erasure("over", "anna", NOW)))
        assert not store.is_held_elsewhere("a" * 64, first.request_id)

    def test_a_number_is_given_once(self, store: SqlReviewStore) -> None:
        with ThreadPoolExecutor(8) as threads:
            given = list(threads.map(lambda _: store.next_number("northshire", 2026), range(24)))
        assert sorted(given) == list(range(1, 25))
        assert store.next_number("eastmoor", 2026) == store.next_number("northshire", 2027) == 1

    def test_a_key_stands_for_one_request(self, store: SqlReviewStore) -> None:
        first = a_case()
        assert store.add(first, "key", "f1") is None
        assert store.add(a_case("2026-00002"), "key", "f1") == first
        with pytest.raises(Conflict) as refused:
            store.add(a_case("2026-00003"), "key", "f2")
        assert refused.value.code == "idempotency_key_reused"
        assert store.add(a_case("2026-00004", requested_by="other"), "key", "f2") is None
        with pytest.raises(DependencyUnavailable):
            store.add(a_case("2026-00004"))  # a number that is taken is nobody's fault who asks

    def test_the_newest_training_counts(self, store: SqlReviewStore) -> None:
        first = Training("anna", "northshire", "c", "1", date(2024, 1, 1), date(2025, 1, 1), "sue", NOW)
        second = replace(first, expires_on=date(2028, 1, 1))
        for training in (first, second, replace(first, person_id="bert")):
            store.put_training(training)
        assert store.training("northshire", "anna") == second
        # One person, however it was typed at sign-in: another spelling is no way round a training that has ended.
        assert store.training("northshire", "Anna") == second
        assert store.training("eastmoor", "anna") is None
        assert [one.person_id for one in store.trainings("northshire")] == ["anna", "bert"]

    def test_acts_stay_open_until_closed(self, store: SqlReviewStore) -> None:
        old = OpenAct(new_id(), new_id(), NOW - timedelta(minutes=5), b"{}")
        young = OpenAct(new_id(), new_id(), NOW, b"{}")
        for act in (young, old):
            store.open_act(act)
        assert list(store.open_acts(NOW - timedelta(minutes=1), 10)) == [old]
        store.close_act(old.activity_id)
        assert list(store.open_acts(NOW - timedelta(minutes=1), 10)) == []

    def test_an_act_is_settled_in_one_transaction_with_what_it_changes(self, store: SqlReviewStore) -> None:
        case = a_case()
        store.add(case)
        act = OpenAct(new_id(), new_id(), NOW, b"begun")
        store.open_act(act)
        done = Settlement(act.activity_id, b"begun", b"done")
        with pytest.raises(Conflict):
            store.save(replace(case, version=7), settles=done)
        assert [one.entry for one in store.open_acts(NOW + timedelta(days=1), 10)] == [b"begun"]
        store.save(case, settles=done)
        assert [one.entry for one in store.open_acts(NOW + timedelta(days=1), 10)] == [b"done"]
        # Given up meanwhile, or ended: nothing is stored.
        assert not store.settle_act(Settlement(act.activity_id, b"begun", b"given up"))
        with pytest.raises(AuditUnavailable):
            store.save(replace(case, version=2), settles=done)
        found = store.find(case.request_id)
        assert found is not None
        assert found.version == 2
