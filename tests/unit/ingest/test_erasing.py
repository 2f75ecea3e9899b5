"""What an erasure takes with it: all that is there, also what was withdrawn, and no less because another is at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_custody import SqlCustody
from services.ingest.adapters.sql_erasures import SqlErasures
from services.ingest.life.clock_guard import ClockGuard
from services.ingest.life.custody import Receipt, ReceiptOutcome
from services.ingest.life.erasing import EraseCommand, EraseSubject, ErasureStores
from services.ingest.life.erasure import Erasure
from services.shared.clock import SystemClock
from services.shared.errors import Forbidden, NotFound
from tests.contract.test_enrolment_ledger import (
    CUSTODIAN,
    LATER,
    NOW,
    Ledgers,
    accept,
    claim,
    enrol,
    event,
    new,
    open_ledgers,
    settle,
)
from tests.unit.ingest.test_clock_guard import FakeClock, FakeMarks

IMAGE = "a" * 64


class Proof:
    """A log that takes every entry."""

    def record_intent(self, erasure: Erasure) -> None: ...

    def record_outcome(self, erasure: Erasure, phase: int, details: dict[str, str]) -> None: ...


class Gallery:
    """The ledger's own stores, two images of one subject enrolled."""

    def __init__(self, ledgers: Ledgers, committer: GroupCommitter) -> None:
        self.ledgers, self.erasures = ledgers, SqlErasures(ledgers.engine, committer)
        self.custody = SqlCustody(ledgers.engine, committer)
        nothing: Any = cast("Any", None)
        stores = ErasureStores(
            self.erasures, nothing, nothing, nothing, nothing, nothing, nothing, topics=(), about=nothing
        )
        self.erasing = EraseSubject(stores, cast("Any", Proof()), nothing, nothing, SystemClock())
        self.ids = [each.enrolment_id for each in accept(ledgers, new(image=IMAGE), new(image="b" * 64))]
        for pending in claim(ledgers.ledger):
            settle(ledgers, pending, enrol())

    def ask(self, *enrolment_ids: str, days: int = 0) -> Erasure:
        return self.erasing.request(EraseCommand("S1", "acquitted", "request 1", days, enrolment_ids), CUSTODIAN)

    def state(self, enrolment_id: str) -> str:
        view = self.ledgers.ledger.view(enrolment_id)
        assert view is not None
        return view.state.value

    def left_of(self, enrolment_id: str) -> str:
        query = sa.select(enrolments.c.captured_on).where(enrolments.c.enrolment_id == enrolment_id)
        with self.ledgers.engine.connect() as connection:
            return str(connection.scalar(query))


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    for ledgers in open_ledgers(f"sqlite:///{tmp_path}/ledger.sqlite"):
        with closing(GroupCommitter(ledgers.engine)) as committer:
            yield Gallery(ledgers, committer)


@pytest.mark.parametrize("reason", ["the owner took it back", "erased"])
def test_what_was_withdrawn_before_is_erased_with_its_subject(gallery: Gallery, reason: str) -> None:
    one, two = gallery.ids
    gallery.ledgers.ledger.withdraw(one, "c-1", reason, LATER)
    asked = gallery.ask()
    assert sorted(asked.enrolment_ids) == sorted([one, two])
    assert gallery.erasures.erase_rows(asked, LATER) == 2
    assert [gallery.left_of(each) for each in gallery.ids] == ["", ""]
    assert gallery.custody.enrolments_of_image("northshire", "S1", IMAGE, with_withdrawn=True) == []
    gallery.erasures.finish(asked.erasure_id, "{}", LATER, [])


def test_also_by_its_id_and_by_its_image(gallery: Gallery) -> None:
    one, two = gallery.ids
    for each in gallery.ids:
        gallery.ledgers.ledger.withdraw(each, "c-1", "taken back", LATER)
    assert gallery.custody.enrolments_of_image("northshire", "S1", IMAGE) == []
    assert gallery.custody.enrolments_of_image("northshire", "S1", IMAGE, with_withdrawn=True) == [one]
    assert gallery.ask(one).enrolment_ids == (one,)
    assert gallery.ask(two).enrolment_ids == (two,)
    with pytest.raises(NotFound):
        gallery.erasing.request(EraseCommand("S2", "acquitted", "request 1", 0), CUSTODIAN)


def test_a_day_that_came_because_the_clock_was_set_erases_nothing(gallery: Gallery) -> None:
    """The guard looks every few seconds; who erases looks more often, and first at the guard."""
    asked = gallery.ask(gallery.ids[0], days=1)
    clock, marks = FakeClock(), FakeMarks()
    clock.wall = datetime.fromtimestamp(asked.requested_at_ms / 1000, UTC)
    guard = ClockGuard(clock, marks)
    guard.observe()
    nothing: Any = cast("Any", None)
    erasing = EraseSubject(nothing, nothing, nothing, guard, clock)
    assert not erasing._is_due(asked)
    clock.wall += timedelta(hours=25)
    assert not erasing._is_due(asked)
    guard.confirm()
    assert erasing._is_due(asked)
    clock.pass_s(1)
    assert erasing._is_due(asked)


def test_a_withdrawal_that_comes_late_takes_nothing_of_a_later_event(gallery: Gallery) -> None:
    """The first image came with an event, as the feed has it in its receipts; the second by REST, captured in 2026."""
    one, two = gallery.ids
    given = Receipt("northshire", "e-1", "k", "S1", "", NOW, NOW, ReceiptOutcome.ACCEPTED, enrolment_id=one)
    gallery.custody.receive(given, event())
    of = partial(gallery.custody.enrolments_of_image, "northshire", "S1", "")
    assert set(of()) == {one, two}
    assert set(of(until_ms=NOW)) == {one, two}
    assert of(until_ms=NOW - 1) == [two]
    assert of(until_ms=0) == []
    again = replace(given, event_id="e-2", occurred_at_ms=NOW - 9)  # the same image for an earlier event
    gallery.custody.receive(again, event())
    assert set(of(until_ms=NOW - 1)) == {one, two}


def test_an_erasure_under_way_does_not_swallow_another(gallery: Gallery) -> None:
    one, two = gallery.ids
    first = gallery.ask(one, days=30)
    assert gallery.ask(one, days=30) == first, "the same again"
    other = gallery.ask(two, days=30)
    assert (other.enrolment_ids, gallery.state(two)) == ((two,), "quarantined")
    whole = gallery.ask(days=30)
    assert (whole.is_whole_subject, len(whole.enrolment_ids)) == (True, 2)
    at_once = gallery.ask()
    assert (at_once.due_at_ms, at_once.erasure_id) == (
        0,
        max(each.erasure_id for each in gallery.erasures.unfinished()),
    )
    assert gallery.ask(one) == gallery.ask() == at_once, "less is part of it"


def test_to_lift_one_erasure_puts_nothing_back_that_another_takes(gallery: Gallery) -> None:
    one, two = gallery.ids
    partly, whole = gallery.ask(one, days=30), gallery.ask(days=20)
    assert gallery.erasing.lift(whole) == 1
    assert [gallery.state(each) for each in (one, two)] == ["quarantined", "accepted"]
    assert gallery.erasing.lift(partly) == 1
    assert gallery.state(one) == "accepted"


def test_an_erasure_under_way_is_told_to_nobody_whose_token_does_not_name_its_watchlists(gallery: Gallery) -> None:
    gallery.ask(days=30)
    stranger = replace(CUSTODIAN, watchlists=frozenset())
    with pytest.raises(Forbidden):
        gallery.erasing.request(EraseCommand("S1", "acquitted", "request 1", 0), stranger)


def test_rows_that_are_bare_already_are_not_asked_for_twice(gallery: Gallery) -> None:
    asked = gallery.ask()
    gallery.erasures.erase_rows(asked, NOW)
    assert gallery.ask() == asked
