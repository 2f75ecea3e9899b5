"""What becomes of probes: the unsolved file, a new search of it, erasure when the time is over."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from services.review.casework.retention import Retention
from services.review.model import Case, CaseState
from services.rpc.v1 import search_pb2
from services.shared.errors import Conflict, DependencyUnavailable, InvalidRequest, NotFound
from tests.unit.review.people import ANNA, BERT, OFFICER, Unit

UNTIL = date(2027, 1, 1)


def unsolved(unit: Unit) -> Case:
    case = unit.released(frozenset())
    return unit.desk.retention.keep_unsolved(
        BERT, case.request_id, case.version, authority="DCI Holt", reason="A series.", expires_on=UNTIL
    )


def test_only_what_is_unsolved_is_kept_and_not_for_ever(unit: Unit) -> None:
    named = unit.released()
    keep = unit.desk.retention.keep_unsolved
    with pytest.raises(Conflict):
        keep(BERT, named.request_id, named.version, authority="DCI Holt", reason="A series.", expires_on=UNTIL)
    none = unit.released(frozenset())
    for day in (date(2026, 6, 1), date(2040, 1, 1)):
        with pytest.raises(InvalidRequest):
            keep(BERT, none.request_id, none.version, authority="DCI Holt", reason="A series.", expires_on=day)


def test_searched_again_without_anybody_new_nothing_is_opened(unit: Unit) -> None:
    case = unsolved(unit)
    done = unit.desk.retention.search_again(ANNA, case.request_id, case.version, "New custody images.")
    assert done.continuation is None
    assert done.case.unsolved is not None
    assert done.case.unsolved.searched_again_at == unit.clock.now()
    assert done.case.state is CaseState.UNSOLVED


def test_somebody_new_opens_a_case_of_the_same_requester_with_the_new_alone(unit: Unit) -> None:
    case = unsolved(unit)
    unit.search.count = 5
    done = unit.desk.retention.search_again(ANNA, case.request_id, case.version, "New custody images.")
    assert done.continuation is not None
    opened = unit.store.find(done.continuation.request_id)
    assert opened is not None
    assert sorted(candidate.subject_id for candidate in opened.candidates) == ["S4", "S5"]
    assert (opened.requested_by, opened.continues, opened.state) == ("officer", case.request_id, CaseState.SEARCHED)
    assert {row.number for row in unit.desk.looking.queue(OFFICER)} == {case.number, opened.number}
    # The same way through two reviews as any other.
    unit.signed(ANNA, opened, frozenset({"S5"}))
    decided = unit.signed(BERT, opened, frozenset({"S5"}))
    released = unit.desk.deciding.release(BERT, opened.request_id, decided.version, UNTIL)
    assert released.release is not None
    assert [name.subject_id for name in released.release.names] == ["S5"]


def test_who_was_found_by_an_earlier_search_is_judged_there_and_not_again(unit: Unit) -> None:
    case = unsolved(unit)
    unit.search.count = 5
    first = unit.desk.retention.search_again(ANNA, case.request_id, case.version, "New custody images.")
    assert first.continuation is not None
    unit.search.count = 6
    later = unit.desk.retention.search_again(ANNA, case.request_id, first.case.version, "A month later.")
    assert later.continuation is not None
    assert [candidate.subject_id for candidate in later.continuation.candidates] == ["S6"]
    last = unit.desk.retention.search_again(ANNA, case.request_id, later.case.version, "Another month later.")
    assert last.continuation is None


def test_of_two_who_search_again_at_once_one_case_is_opened(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    case = unsolved(unit)
    unit.search.count = 5
    again, identify = unit.desk.retention.search_again, unit.search.identify

    def meanwhile(bearer: str, request: search_pb2.IdentifyRequest) -> bytes:
        if bearer == ANNA.bearer:
            again(BERT, case.request_id, case.version, "New custody images.")
        return identify(bearer, request)

    # Both looked for earlier cases before the other one had opened any.
    monkeypatch.setattr(Retention, "_continuations", lambda *_: ())
    monkeypatch.setattr(unit.search, "identify", meanwhile)
    with pytest.raises(Conflict):
        again(ANNA, case.request_id, case.version, "New custody images.")
    assert len([row for row in unit.desk.looking.queue(OFFICER) if row.state is CaseState.SEARCHED]) == 1


def test_an_expired_authority_searches_nothing(unit: Unit) -> None:
    case = unsolved(unit)
    unit.clock.at += timedelta(days=300)
    with pytest.raises(Conflict) as refused:
        unit.desk.retention.search_again(ANNA, case.request_id, case.version, "New custody images.")
    assert refused.value.code == "retention_over"
    assert [row.is_retention_due for row in unit.desk.looking.queue(ANNA)] == [True]


def test_pictures_are_erased_when_their_time_is_over_and_not_before(unit: Unit) -> None:
    case = unit.released()
    with pytest.raises(Conflict) as refused:
        unit.desk.retention.erase(ANNA, case.request_id, case.version, "Review date.")
    assert refused.value.code == "retention_not_due"
    unit.clock.at += timedelta(days=200)
    erased = unit.desk.retention.erase(ANNA, case.request_id, case.version, "Review date.")
    assert erased.state is CaseState.CLOSED
    with pytest.raises(NotFound):
        unit.desk.pictures.probe(ANNA, case.request_id, case.probes[0].probe_id)
    unit.desk.documents.result(OFFICER, case.request_id)  # what was said stays, without the pictures
    entries = [entry for entry in unit.audit.entries if entry["activity"] == "erase"]
    assert [entry["operation"] for entry in entries] == ["ERASURE"] * len(entries)
    assert f"picture:{case.probes[0].original.sha256}" in entries[-1]["objects"]
    with pytest.raises(Conflict) as again:
        unit.desk.retention.erase(ANNA, case.request_id, erased.version, "Review date.")
    assert again.value.code == "erased"


def test_the_copies_that_search_sealed_go_first_and_are_asked_for_again_when_search_was_away(unit: Unit) -> None:
    case = unit.released()
    unit.clock.at += timedelta(days=200)
    sha256 = case.probes[0].original.sha256
    unit.copies.sealed, unit.copies.is_down = {sha256}, True
    with pytest.raises(DependencyUnavailable):
        unit.desk.retention.erase(ANNA, case.request_id, case.version, "Review date.")
    closed = unit.store.find(case.request_id)
    assert closed is not None
    assert closed.state is CaseState.CLOSED, "nobody is shown what is about to go"
    unit.copies.is_down = False
    erased = unit.desk.retention.erase(ANNA, case.request_id, closed.version, "Once more.")
    asked = unit.copies.asked[-1]
    assert (asked.request_id, asked.case_reference) == (case.request_id, "NS/2026/1")
    assert (asked.actor.person_id, asked.actor.force, asked.reason) == ("anna", "northshire", "Once more.")
    assert sorted(asked.sha256s) == sorted(case.pictures_ever())
    entries = [entry for entry in unit.audit.entries if entry["activity"] == "erase"]
    assert {f"probe:{sha256}", f"picture:{sha256}"} <= set(entries[-1]["objects"])
    with pytest.raises(Conflict):
        unit.desk.retention.erase(ANNA, case.request_id, erased.version, "Once more.")


def test_copies_that_another_case_needs_are_not_asked_for(unit: Unit) -> None:
    first, _ = unit.requested(), unit.requested()
    gone = unit.desk.intake.withdraw(OFFICER, first.request_id, first.version)
    unit.desk.retention.erase(ANNA, gone.request_id, gone.version, "Withdrawn.")
    assert unit.copies.asked == []


def test_a_picture_that_another_case_holds_stays_for_it(unit: Unit) -> None:
    first, second = unit.requested(), unit.requested()
    gone = unit.desk.intake.withdraw(OFFICER, first.request_id, first.version)
    unit.desk.retention.erase(ANNA, gone.request_id, gone.version, "Withdrawn.")
    assert unit.desk.pictures.probe(ANNA, second.request_id, second.probes[0].probe_id).content
    gone = unit.desk.intake.withdraw(OFFICER, second.request_id, second.version)
    unit.desk.retention.erase(ANNA, gone.request_id, gone.version, "Withdrawn.")
    with pytest.raises(NotFound):
        unit.desk.pictures.probe(ANNA, second.request_id, second.probes[0].probe_id)
