"""The contract of the enrolment ledger, held on SQLite here and on PostgreSQL in tests/stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.schema import enrolments, metadata
from services.ingest.adapters.sql_ledger import SqlLedger
from services.ingest.adapters.sql_outbox import SqlOutbox
from services.ingest.adapters.sql_references import SqlReferenceReader, SqlSyntheticLedger
from services.ingest.bootstrap import MIGRATIONS
from services.ingest.enrolling.enrolment import (
    Acceptance,
    Decision,
    EnrolmentKey,
    EnrolmentState,
    IdempotencyKey,
    NewEnrolment,
    PendingEnrolment,
    Source,
    Verdict,
)
from services.ingest.ports import EnrolmentFilter, OpenIntent, SyntheticBatch
from services.shared.biometric import ModelProvenance
from services.shared.database import create_engine, migrate
from services.shared.errors import Conflict, ModelMismatch, NotFound
from services.shared.ids import new_id
from services.shared.ports.event_log import Event
from services.shared.settings import DatabaseSettings
from services.shared.tokens import Principal

NOW = 1_780_000_000_000
LATER = NOW + 60_000
MODEL = ModelProvenance("m1", "det", "d" * 64, "rec", "e" * 64, "Apache-2.0", 4, "p1", "rt 1", "CPU")
TEMPLATE = np.array([1, 0, 0, 0], dtype="<f4").tobytes()
CUSTODIAN = Principal("c-1", "northshire", frozenset({"custodian"}), frozenset({"custody"}))


@dataclass
class Ledgers:
    """A ledger under two instances, as two processes see it, and what stands beside it."""

    engine: sa.Engine
    ledger: SqlLedger
    other: SqlLedger
    outbox: SqlOutbox
    references: SqlReferenceReader
    synthetic: SqlSyntheticLedger


def open_ledgers(url: str) -> Iterator[Ledgers]:
    engine = create_engine(DatabaseSettings(url=url))
    migrate(engine, MIGRATIONS)
    committers = GroupCommitter(engine), GroupCommitter(engine)
    yield Ledgers(
        engine,
        SqlLedger(engine, committers[0], "one"),
        SqlLedger(engine, committers[1], "two"),
        SqlOutbox(engine, committers[0]),
        SqlReferenceReader(engine),
        SqlSyntheticLedger(engine, committers[0], "one"),
    )
    for committer in committers:
        committer.close()
    engine.dispose()


@pytest.fixture
def ledgers(tmp_path: Path) -> Iterator[Ledgers]:
    yield from open_ledgers(f"sqlite:///{tmp_path / 'ingest.sqlite'}")


def new(image: str = "", *, subject: str = "S1", idempotency: IdempotencyKey | None = None, **key: str) -> NewEnrolment:
    fields = {
        "watchlist_id": "custody",
        "owner": "northshire",
        "image_sha256": image or new_id(),
        "model_id": "m1",
        **key,
    }
    return NewEnrolment(
        enrolment_id=new_id(),
        reference_id=new_id(),
        key=EnrolmentKey(subject_id=subject, **fields),
        lawful_basis="pace_1984_s64a",
        captured_on="2026-01-02",
        agreement_reference="",
        source=Source.REST,
        person_id="c-1",
        force="northshire",
        accepted_at_ms=NOW,
        idempotency=idempotency,
    )


def enrol(verdict: Verdict = Verdict.ENROL, model: ModelProvenance = MODEL) -> Decision:
    if verdict is Verdict.ENROL:
        return Decision(
            verdict,
            NOW,
            template=TEMPLATE,
            model=model,
            unified_quality=80.0,
            quality_components={"sharpness": 70.12345},
            inter_eye_px=61.5,
        )
    return Decision(verdict, NOW, reason="no_face_found", detail="No face\x00.")


def event(subject: str = "S1") -> Event:
    return Event("likeness.reference-enrolled.v1", f"northshire/{subject}", b"\x00value", {"schema": "x"})


def accept(ledgers: Ledgers, *items: NewEnrolment) -> list[Acceptance]:
    return list(ledgers.ledger.accept(items))


def claim(ledger: SqlLedger, limit: int = 100, now: int = NOW) -> list[PendingEnrolment]:
    return list(ledger.claim(limit, now, now + 30_000))


def settle(ledgers: Ledgers, pending: PendingEnrolment, decision: Decision) -> None:
    for standing in ledgers.ledger.decide([(pending, decision)]):
        ledgers.ledger.settle([(standing, [event()])], LATER)


class TestEnrolmentLedger:
    def test_the_migrations_make_the_tables_of_the_code(self, ledgers: Ledgers) -> None:
        with ledgers.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []

    def test_what_is_accepted_is_there_and_pending(self, ledgers: Ledgers) -> None:
        item = new(subject="Zoë/1")
        [acceptance] = accept(ledgers, item)
        assert acceptance == Acceptance(item.enrolment_id, EnrolmentState.ACCEPTED, is_new=True)
        view = ledgers.ledger.view(item.enrolment_id)
        assert view is not None
        assert (view.subject_id, view.state, view.settled_at_ms) == ("Zoë/1", EnrolmentState.ACCEPTED, None)
        assert ledgers.ledger.pending_count() == 1
        assert ledgers.ledger.view(new_id()) is None

    def test_the_same_key_is_one_enrolment(self, ledgers: Ledgers) -> None:
        first, again = new("sha"), new("sha")
        others = [new("sha", subject="S2"), new("sha", watchlist_id="sex_offenders"), new("sha", model_id="m2")]
        answers = accept(ledgers, first, again, *others)
        assert [answer.is_new for answer in answers] == [True, False, True, True, True]
        assert answers[1].enrolment_id == first.enrolment_id
        [later] = accept(ledgers, new("sha"))
        assert later == Acceptance(first.enrolment_id, EnrolmentState.ACCEPTED, is_new=False)
        assert ledgers.ledger.find([first.key]) == {first.key: later}

    def test_whose_an_image_is(self, ledgers: Ledgers) -> None:
        accept(ledgers, new("sha"), new("sha", subject="S2"), new("sha", owner="eastmoor"), new("other"))
        assert ledgers.ledger.owners_of_image("sha") == {"northshire", "eastmoor"}
        assert ledgers.ledger.owners_of_image("other") == {"northshire"}
        assert ledgers.ledger.owners_of_image("nobody's") == frozenset()

    def test_the_same_key_at_once_from_two_processes_is_one_enrolment(self, ledgers: Ledgers) -> None:
        with ThreadPoolExecutor(20) as pool:
            answers = list(
                pool.map(lambda n: (ledgers.ledger, ledgers.other)[n % 2].accept([new("sha")])[0], range(20))
            )
        assert len({answer.enrolment_id for answer in answers}) == 1
        assert sum(answer.is_new for answer in answers) == 1

    def test_an_idempotency_key_stands_for_one_request_of_one_caller(self, ledgers: Ledgers) -> None:
        key = IdempotencyKey("northshire/c-1", "k", "digest")
        item = new("sha", idempotency=key)
        accept(ledgers, item)
        assert ledgers.ledger.check_idempotency(key) == item.enrolment_id
        assert ledgers.ledger.check_idempotency(IdempotencyKey("northshire/c-2", "k", "digest")) is None
        other = IdempotencyKey("northshire/c-1", "k", "another digest")
        with pytest.raises(Conflict):
            ledgers.ledger.check_idempotency(other)
        with pytest.raises(Conflict):
            accept(ledgers, new("sha2", idempotency=other))
        assert ledgers.ledger.pending_count() == 1

    def test_an_intent_is_remembered_until_its_enrolment_is_accepted(self, ledgers: Ledgers) -> None:
        kept, dropped = new(), new()
        intents = [
            OpenIntent(item.enrolment_id, CUSTODIAN, ("watchlist:custody",), {"source": "rest"})
            for item in (kept, dropped)
        ]
        ledgers.ledger.remember_intents(intents, NOW)
        accept(ledgers, kept)
        [left] = ledgers.ledger.abandoned_intents(NOW + 1, 0, 10)
        assert left.enrolment_id == dropped.enrolment_id
        assert (left.principal.person_id, left.objects, left.details) == (
            "c-1",
            ("watchlist:custody",),
            {"source": "rest"},
        )
        assert ledgers.ledger.abandoned_intents(NOW, 0, 10) == []
        assert ledgers.other.abandoned_intents(NOW + 1, 0, 10) == []
        assert len(ledgers.other.abandoned_intents(0, NOW + 1, 10)) == 1
        ledgers.ledger.forget_intents([dropped.enrolment_id])
        assert ledgers.ledger.abandoned_intents(NOW + 1, 0, 10) == []

    def test_claims_are_exclusive_in_order_and_lapse(self, ledgers: Ledgers) -> None:
        items = [new() for _ in range(10)]
        accept(ledgers, *items)
        with ThreadPoolExecutor(4) as pool:
            claimed = list(pool.map(lambda n: claim((ledgers.ledger, ledgers.other)[n % 2], 3), range(4)))
        ids = [pending.enrolment_id for part in claimed for pending in part]
        assert Counter(ids) == Counter(item.enrolment_id for item in items)
        assert all(part == sorted(part, key=lambda pending: pending.version) for part in claimed)
        assert claim(ledgers.ledger) == []
        assert len(claim(ledgers.ledger, now=NOW + 30_001)) == 10

    def test_a_renewed_claim_holds_and_a_restart_frees_its_own(self, ledgers: Ledgers) -> None:
        accept(ledgers, new(), new())
        [mine] = claim(ledgers.ledger, 1)
        [others] = claim(ledgers.other, 1)
        ledgers.ledger.renew_claims(NOW + 90_000)
        assert [pending.enrolment_id for pending in claim(ledgers.ledger, now=NOW + 40_000)] == [others.enrolment_id]
        ledgers.ledger.release_claims()
        assert mine.enrolment_id in {pending.enrolment_id for pending in claim(ledgers.ledger, now=NOW + 1)}

    def test_a_decision_survives_and_is_not_out_before_it_is_settled(self, ledgers: Ledgers) -> None:
        accept(ledgers, new("a"), new("b"))
        enrolled, refused = claim(ledgers.ledger)
        standing = ledgers.ledger.decide([(enrolled, enrol()), (refused, enrol(Verdict.REFUSE))])
        assert [pending.decision is not None for pending in standing] == [True, True]
        view = ledgers.ledger.view(refused.enrolment_id)
        assert view is not None
        assert (view.state, view.reason, view.detail) == (EnrolmentState.ACCEPTED, "", "")
        ledgers.ledger.release_claims()
        again = {each.enrolment_id: each.decision for each in claim(ledgers.ledger) if each.decision}
        assert again[enrolled.enrolment_id].template == TEMPLATE
        assert again[refused.enrolment_id].reason == "no_face_found"

    def test_settled_is_final_with_its_event_in_the_same_transaction(self, ledgers: Ledgers) -> None:
        accept(ledgers, new("a"))
        [pending] = claim(ledgers.ledger)
        [standing] = ledgers.ledger.decide([(pending, enrol())])
        ledgers.ledger.settle([(standing, [event()])], LATER)
        ledgers.ledger.settle([(standing, [event()])], LATER + 1)
        assert ledgers.ledger.decide([(pending, enrol(Verdict.REFUSE))]) == []
        view = ledgers.ledger.view(pending.enrolment_id)
        assert view is not None
        assert (view.state, view.settled_at_ms, view.licence) == (EnrolmentState.ENROLLED, LATER, "Apache-2.0")
        assert (view.unified_quality, view.quality_components, view.inter_eye_px) == (80.0, {"sharpness": 70.123}, 61.5)
        [(event_id, published)] = ledgers.outbox.oldest(10)
        assert published == event()
        ledgers.outbox.remove([event_id])
        assert ledgers.outbox.count() == 0

    def test_a_crash_is_counted_for_the_next_claim(self, ledgers: Ledgers) -> None:
        accept(ledgers, new())
        [pending] = claim(ledgers.ledger)
        ledgers.ledger.count_crash(pending.enrolment_id)
        ledgers.ledger.release_claims()
        assert [each.crashes for each in claim(ledgers.ledger)] == [1]

    def test_a_model_changed_since_acceptance_moves_the_key_or_finds_the_duplicate(self, ledgers: Ledgers) -> None:
        newer = ModelProvenance("m2", "det", "d" * 64, "rec", "f" * 64, "MIT", 4, "p2", "rt 1", "CPU")
        accept(ledgers, new("a"), new("b"), new("b", model_id="m2"))
        moved, duplicate, _ = claim(ledgers.ledger)
        standing = ledgers.ledger.decide([(moved, enrol(model=newer)), (duplicate, enrol(model=newer))])
        assert [pending.key.model_id for pending in standing] == ["m2", "m1"]
        decisions = [pending.decision for pending in standing if pending.decision]
        assert [decision.verdict for decision in decisions] == [Verdict.ENROL, Verdict.REFUSE]
        assert decisions[1].reason == "duplicate"

    def test_a_withdrawal_wins_over_what_is_under_way(self, ledgers: Ledgers) -> None:
        accept(ledgers, new("a"))
        [pending] = claim(ledgers.ledger)
        [standing] = ledgers.ledger.decide([(pending, enrol())])
        ledgers.ledger.withdraw(pending.enrolment_id, "c-1", "no further action", LATER)
        ledgers.ledger.withdraw(pending.enrolment_id, "c-9", "again", LATER + 1)
        ledgers.ledger.settle([(standing, [event()])], LATER)
        view = ledgers.ledger.view(pending.enrolment_id)
        assert view is not None
        assert (view.state, view.reason) == (EnrolmentState.WITHDRAWN, "no further action")
        assert ledgers.outbox.count() == 0
        [withdrawal] = ledgers.ledger.unsettled_withdrawals(10)
        assert withdrawal.version > pending.version
        assert withdrawal.was_enrolled
        ledgers.ledger.settle_withdrawal(withdrawal, [event()])
        ledgers.ledger.settle_withdrawal(withdrawal, [event()])
        assert ledgers.outbox.count() == 1
        assert ledgers.ledger.unsettled_withdrawals(10) == []
        assert list(ledgers.references.read("m1")) == []
        with ledgers.engine.connect() as connection:
            assert connection.scalars(sa.select(enrolments.c.template)).all() == [None]
        with pytest.raises(NotFound):
            ledgers.ledger.withdraw(new_id(), "c-1", "x", NOW)

    def test_references_are_those_that_should_stand_in_the_gallery(self, ledgers: Ledgers) -> None:
        accept(ledgers, new("a"), new("b"), new("c"), new("d", watchlist_id="sex_offenders"), new("e"))
        a, b, c, d, e = claim(ledgers.ledger)
        settle(ledgers, a, enrol())
        settle(ledgers, b, enrol(Verdict.REFUSE))
        settle(ledgers, d, enrol())
        ledgers.ledger.decide([(e, enrol())])  # its template is durable, so a gallery built now must have it
        found = {batch.watchlist_id: batch for batch in ledgers.references.read("m1")}
        assert c.enrolment_id
        assert list(found["custody"].reference_ids) == [a.reference_id, e.reference_id]
        assert list(found["custody"].versions) == [a.version, e.version]
        assert found["custody"].vectors == TEMPLATE * 2
        assert (found["custody"].dimension, list(found["custody"].image_sha256s)) == (4, ["a", "e"])
        assert list(found["sex_offenders"].reference_ids) == [d.reference_id]
        with pytest.raises(ModelMismatch):
            list(ledgers.references.read("m2"))

    def test_counts_add_up(self, ledgers: Ledgers) -> None:
        accept(ledgers, *(new() for _ in range(4)), new(watchlist_id="sex_offenders"))
        first, second, third, *_ = claim(ledgers.ledger)
        settle(ledgers, first, enrol())
        settle(ledgers, second, enrol(Verdict.REFUSE))
        settle(ledgers, third, enrol(Verdict.QUARANTINE))
        custody, offenders = ledgers.ledger.counts()
        assert (custody.accepted, custody.pending, custody.enrolled) == (4, 1, 1)
        assert (custody.refused, custody.quarantined, offenders.pending) == (1, 1, 1)
        states = ledgers.ledger.count_states("northshire", frozenset({"custody"}))
        assert states[EnrolmentState.ACCEPTED] == 1
        assert sum(states.values()) == 4
        assert sum(ledgers.ledger.count_states("eastmoor", frozenset({"custody"})).values()) == 0
        assert ledgers.ledger.last_model_id() == "m1"

    def test_what_cannot_be_searched_is_counted_by_owner(self, ledgers: Ledgers) -> None:
        accept(ledgers, new("a"), new("b", owner="eastmoor"), new("c", owner="eastmoor"), new("d", owner="westhaven"))
        own, refused, quarantined, enrolled = claim(ledgers.ledger)
        for item, verdict in ((own, Verdict.REFUSE), (refused, Verdict.REFUSE), (quarantined, Verdict.QUARANTINE)):
            settle(ledgers, item, enrol(verdict))
        settle(ledgers, enrolled, enrol())
        [custody] = ledgers.ledger.counts()
        assert (custody.refused, custody.quarantined) == (2, 1)
        counted = [(one.owner, one.refused, one.quarantined) for one in custody.owners]
        assert counted == [("eastmoor", 1, 1), ("northshire", 1, 0)]

    def test_pages_are_by_owner_watchlist_and_state(self, ledgers: Ledgers) -> None:
        items = [new() for _ in range(5)]
        accept(ledgers, *items, new(owner="eastmoor"), new(watchlist_id="sex_offenders"))
        everything = EnrolmentFilter("northshire", frozenset({"custody"}), limit=3)
        first = ledgers.ledger.list(everything)
        rest = ledgers.ledger.list(
            EnrolmentFilter("northshire", frozenset({"custody"}), after=first[-1].enrolment_id, limit=3)
        )
        assert [view.enrolment_id for view in (*first, *rest)] == sorted(item.enrolment_id for item in items)
        accepted = EnrolmentFilter("northshire", frozenset({"custody"}), EnrolmentState.ACCEPTED)
        assert len(ledgers.ledger.list(accepted)) == 5
        assert ledgers.ledger.list(EnrolmentFilter("northshire", frozenset({"custody"}), EnrolmentState.REFUSED)) == []
        asked = [items[2].enrolment_id, new_id()]
        [outcome] = ledgers.ledger.outcomes(everything, asked)
        assert (outcome.enrolment_id, outcome.state) == (items[2].enrolment_id, EnrolmentState.ACCEPTED)
        assert ledgers.ledger.outcomes(EnrolmentFilter("eastmoor", frozenset({"custody"})), asked) == []
        assert ledgers.ledger.list(EnrolmentFilter("northshire", frozenset())) == []

    def test_one_callers_error_is_no_others(self, ledgers: Ledgers) -> None:
        """Work that waits together is committed together, and fails apart."""
        key = IdempotencyKey("northshire/c-1", "k", "digest")
        accept(ledgers, new(idempotency=key))
        bad = IdempotencyKey("northshire/c-1", "k", "other")

        def attempt(number: int) -> bool:
            try:
                ledgers.ledger.accept([new(idempotency=bad if number % 5 == 0 else None)])
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(attempt, range(40)))
        assert results == [number % 5 != 0 for number in range(40)]
        assert ledgers.ledger.pending_count() == 33

    def test_synthetic_references_are_labelled_and_taken_over_after_a_crash(self, ledgers: Ledgers) -> None:
        batch = SyntheticBatch(
            watchlist_id="custody",
            owner="100%",
            person_id="a-1",
            model=MODEL,
            enrolment_ids=[new_id() for _ in range(3)],
            reference_ids=[new_id() for _ in range(3)],
            subject_ids=[f"SYNTHETIC-{number:06d}" for number in (1, 2, 3)],
            templates=[TEMPLATE] * 3,
            made_at_ms=NOW,
            leased_until_ms=NOW + 30_000,
        )
        versions = list(ledgers.synthetic.insert(batch))
        assert versions == list(range(versions[0], versions[0] + 3))
        assert claim(ledgers.other) == []
        assert ledgers.synthetic.enrolled_count("custody") == 0
        [left, *_] = claim(ledgers.other, now=NOW + 30_001)
        assert left.decision is not None
        assert (left.source, left.decision.verdict, left.decision.template) == (
            Source.SYNTHETIC,
            Verdict.ENROL,
            TEMPLATE,
        )
        ledgers.synthetic.mark_enrolled("custody", versions, LATER)
        assert ledgers.synthetic.enrolled_count("custody") == 3
        assert ledgers.synthetic.next_number("custody", "100%") == 4
        assert ledgers.synthetic.next_number("custody", "northshire") == 1
        [counts] = ledgers.ledger.counts()
        assert (counts.enrolled, counts.synthetic) == (3, 3)
        [found] = ledgers.references.read("m1")
        assert list(found.subject_ids) == list(batch.subject_ids)
