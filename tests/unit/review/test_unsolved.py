"""The unsolved file by itself: against what is new, by its keeper's rights, once, and nobody else is told."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta

import orjson
import pytest

from services.review.casework.caller import Caller
from services.review.casework.steps import Casebook
from services.review.model import Case, CaseState
from services.review.unsolved.ending import EndKept
from services.review.unsolved.looking import SeeKept
from services.review.unsolved.ports import KeptLook, KeptState
from services.review.unsolved.searching import ACTIVITY, SearchKept
from services.review.unsolved.settings import UnsolvedSettings
from services.review.unsolved.sql_store import SqlKeptStore
from services.rpc.v1 import search_pb2, unsolved_pb2
from services.shared.errors import (
    DependencyUnavailable,
    Forbidden,
    IntegrityError,
    LikenessError,
    NotFound,
    TooManyRequests,
)
from tests.unit.review.people import ANNA, BERT, OFFICER, SUE, Unit, person
from tests.unit.review.test_retention import UNTIL, unsolved

HOUR = 3600.0


@dataclass
class KeptSearches:
    """Search as review asks it: new subjects by name; the same key gives the same answer."""

    unit: Unit
    new: list[str] = field(default_factory=list)
    error: LikenessError | None = None
    is_unchanged: bool = False
    asked: list[unsolved_pb2.SearchAgainRequest] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)

    def search_again(self, request: unsolved_pb2.SearchAgainRequest) -> bytes | None:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        if self.is_unchanged:
            return None
        return self.answers.setdefault(request.search.idempotency_key, self._answer(request.search))

    def _answer(self, request: search_pb2.IdentifyRequest) -> bytes:
        document = orjson.loads(self.unit.search.identify("", request))
        document["searched_at"] = self.unit.clock.now().isoformat()
        document["gallery_snapshot"] = {"snapshot_id": f"{len(self.asked):064d}"}
        document["candidates"] = [
            {**document["candidates"][0], "rank": rank, "subject_id": subject}
            for rank, subject in enumerate(self.new, 1)
        ]
        return orjson.dumps(document)


class FailingStore(SqlKeptStore):
    """Fails, as a machine that stops, when what came of a look is to be stored."""

    is_broken = False

    def put(self, request_id: str, look: KeptLook) -> None:
        if self.is_broken:
            raise DependencyUnavailable("stopped")
        super().put(request_id, look)


@dataclass
class File:
    """The unsolved file of a unit."""

    unit: Unit
    kept: FailingStore
    searches: KeptSearches
    search: SearchKept
    end: EndKept
    see: SeeKept

    def turn_after(self, hours: float) -> None:
        self.unit.clock.pass_s(hours * HOUR)
        self.search.turn()

    def opened(self, case: Case) -> list[Case]:
        return list(self.kept.continuations(case))


@pytest.fixture
def file(unit: Unit) -> File:
    settings = UnsolvedSettings(per_turn=1)
    book = Casebook(unit.store, unit.desk.trail, unit.clock)
    kept, searches = FailingStore(unit.store._engine), KeptSearches(unit)
    images = unit.desk.retention._images
    return File(
        unit,
        kept,
        searches,
        SearchKept(settings=settings, book=book, kept=kept, images=images, searcher=searches, audit=unit.audit),
        EndKept(settings, book, kept, unit.desk.retention),
        SeeKept(book, kept),
    )


def test_search_is_asked_for_what_is_new_by_the_keepers_rights(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    file.turn_after(1)
    [asked] = file.searches.asked
    assert asked.search.mode == "identification"
    assert (asked.mandate.owner.person_id, asked.mandate.owner.force) == ("bert", "northshire")
    assert set(asked.mandate.watchlists) == BERT.principal.watchlists
    assert asked.mandate.trained_until == "2027-01-01"
    # From when people searched it, not from when it was kept.
    assert asked.since_ms == int(case.searches[0].searched_at.timestamp() * 1000)
    file.turn_after(7)
    again = file.searches.asked[1]
    assert again.since_ms > asked.since_ms
    assert again.unless_snapshot == f"{1:064d}"
    assert again.search.idempotency_key != asked.search.idempotency_key
    assert unit.audit.of(ACTIVITY) == ["DONE", "DONE"]


def test_nobody_new_opens_nothing_and_nothing_new_is_not_searched(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    file.searches.new = ["S1", "S3"]  # whom people have judged already
    file.turn_after(1)
    assert file.opened(case) == []
    file.searches.is_unchanged = True
    file.turn_after(7)
    assert file.see(ANNA, case.request_id).state is KeptState.UNCHANGED
    assert unit.audit.of(ACTIVITY) == ["DONE"]
    file.turn_after(1)
    assert len(file.searches.asked) == 2  # a case is not looked at more often than that


def test_somebody_new_is_told_to_the_cases_own_people_alone(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    file.turn_after(1)
    silent, seen = file.see(ANNA, case.request_id), len(unit.audit.entries)
    before = unit.desk.supervision.figures(SUE).by_state
    file.searches.new = ["S9", "S1"]
    file.turn_after(7)
    [opened] = file.opened(case)
    assert [one.subject_id for one in opened.candidates] == ["S9"]
    assert (opened.requested_by, opened.continues, opened.state) == ("officer", case.request_id, CaseState.SEARCHED)
    # Its officer and its keeper; no other operator, no supervisor, nobody who shares its role.
    for who in (OFFICER, BERT):
        assert opened.number in {row.number for row in unit.desk.looking.queue(who)}
    for who in (ANNA, SUE, person("officer-2", "requester", trained_until=None)):
        assert opened.number not in {row.number for row in unit.desk.looking.queue(who, with_finished=True)}
        with pytest.raises(NotFound):
            unit.desk.looking.case(who, opened.request_id)
    with pytest.raises(NotFound):
        unit.desk.examining.begin(ANNA, opened.request_id, opened.version)
    assert unit.desk.supervision.figures(SUE).by_state == before
    # What others see of the kept case, and what the log says of the look, is what it was without a find.
    assert replace(file.see(ANNA, case.request_id), looked_at=None, searched_at=None) == replace(
        silent, looked_at=None, searched_at=None
    )
    assert unit.store.find(case.request_id) == case
    logged = [entry for entry in unit.audit.entries[seen:] if entry["activity"] == ACTIVITY]
    assert [set(entry["details"]) for entry in logged] == [{"since_ms"}]
    assert opened.request_id not in str(logged)
    # Once its keeper has taken it up it is a case like any other, with a second reviewer.
    unit.signed(BERT, opened, frozenset({"S9"}))
    assert unit.signed(ANNA, opened, frozenset({"S9"})).state is CaseState.DECIDED


@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_flagged_find_is_told_to_its_own_people_and_to_who_decides(
    unit: Unit, file: File, *, is_allowed: bool
) -> None:
    case = unsolved(unit)
    file.searches.new, unit.search.flags = ["S9"], ("line_art",)
    file.turn_after(1)
    [opened] = file.opened(case)
    assert opened.state is CaseState.FLAGGED
    other_chief = person("sam", "supervisor")
    for who in (OFFICER, BERT, SUE, other_chief):
        assert _sees(unit, who, opened)
    for who in (ANNA, person("officer-2", "requester", trained_until=None)):
        assert not _sees(unit, who, opened)
    decide = unit.desk.flagged.allow if is_allowed else unit.desk.flagged.refuse
    decided = decide(SUE, opened.request_id, opened.version, "A photograph of a screen.")
    assert decided.state is (CaseState.SEARCHED if is_allowed else CaseState.UNSUITABLE)
    for who in (OFFICER, BERT, SUE):
        assert _sees(unit, who, decided)
    for who in (ANNA, other_chief):
        assert not _sees(unit, who, decided)


def _sees(unit: Unit, who: Caller, case: Case) -> bool:
    """By its id and in the queue, which say the same."""
    listed = case.number in {row.number for row in unit.desk.looking.queue(who, with_finished=True)}
    try:
        unit.desk.looking.case(who, case.request_id)
    except NotFound:
        assert not listed
        return False
    assert listed
    return True


def test_who_was_told_of_once_is_not_told_of_again(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    file.searches.new = ["S9"]
    file.turn_after(1)
    file.turn_after(7)
    assert len(file.opened(case)) == 1
    file.searches.new = ["S9", "S10"]
    file.turn_after(7)
    assert sorted(one.subject_id for opened in file.opened(case) for one in opened.candidates) == ["S10", "S9"]


def test_what_nobody_takes_up_is_everybodys_work_when_it_is_due(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    file.searches.new = ["S9"]
    file.turn_after(1)
    [opened] = file.opened(case)
    unit.clock.at = opened.due_at
    assert opened.number in {row.number for row in unit.desk.looking.queue(ANNA)}


def test_a_stop_before_the_end_repeats_nothing(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    file.searches.new = ["S9"]
    file.kept.is_broken = True
    with pytest.raises(DependencyUnavailable):
        file.turn_after(1)
    file.kept.is_broken = False
    file.turn_after(0.1)
    assert len(file.opened(case)) == 1
    first, second = file.searches.asked
    assert first.search.idempotency_key == second.search.idempotency_key
    entries = [entry for entry in unit.audit.entries if entry["activity"] == ACTIVITY]
    assert len({entry["entry_id"] for entry in entries}) == 1  # the log keeps the first
    assert all({**entry, "objects": 0} == {**entries[0], "objects": 0} for entry in entries)
    file.turn_after(7)
    assert len(file.opened(case)) == 1


@pytest.mark.parametrize("error", [DependencyUnavailable("away"), TooManyRequests("later")])
def test_what_is_missing_now_is_asked_again_soon_under_the_same_id(
    unit: Unit, file: File, error: LikenessError
) -> None:
    case = unsolved(unit)
    file.searches.error = error
    # What is missing for one is missing for the rest of the turn; a limit may be this one's alone.
    with pytest.raises(DependencyUnavailable) if isinstance(error, DependencyUnavailable) else nullcontext():
        file.turn_after(1)
    file.searches.error = None
    file.turn_after(0.1)
    assert len({asked.search.idempotency_key for asked in file.searches.asked}) == 1
    assert file.see(ANNA, case.request_id).state is KeptState.SEARCHED


def test_a_case_that_always_fails_stands_in_nobodys_way(unit: Unit, file: File) -> None:
    broken = unsolved(unit)
    file.searches.error = IntegrityError("The picture is not what it was.")
    file.turn_after(1)
    file.searches.error = None
    assert file.see(ANNA, broken.request_id).state is KeptState.FAILED
    other = unsolved(unit)
    file.turn_after(1)
    assert [asked.request_id for asked in file.searches.asked] == [broken.request_id, other.request_id]


def test_a_denial_is_said_and_moves_no_watermark(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    file.searches.error = Forbidden("Your training is not in date, so you may not search.")
    file.turn_after(1)
    view = file.see(ANNA, case.request_id)
    assert (view.state, view.reason) == (KeptState.DENIED, "Your training is not in date, so you may not search.")
    assert view.searched_at is None
    file.turn_after(7)
    assert len(file.searches.asked) == 1
    file.searches.error = None
    file.turn_after(24)
    assert file.searches.asked[1].since_ms == file.searches.asked[0].since_ms


def test_a_case_without_a_mandate_is_left_to_people(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    assert case.unsolved is not None
    unit.store.save(replace(case, unsolved=replace(case.unsolved, mandate=None)))
    file.turn_after(1)
    assert file.searches.asked == []
    assert file.see(ANNA, case.request_id).state is KeptState.NO_MANDATE


def test_so_many_a_turn_and_everybody_in_turn(unit: Unit, file: File) -> None:
    kept = [unsolved(unit) for _ in range(2)]
    file.turn_after(1)
    assert len(file.searches.asked) == 1
    file.turn_after(0.1)
    assert {asked.request_id for asked in file.searches.asked} == {case.request_id for case in kept}
    file.turn_after(0.1)
    assert len(file.searches.asked) == 2


def test_the_end_of_the_authority_ends_searching_and_erases(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    days = (UNTIL - unit.clock.now().date()).days
    file.end.turn()
    unit.clock.at += timedelta(days=days)
    file.search.turn()
    assert file.searches.asked == []
    file.end.turn()  # a day's grace for whoever set the clock wrong
    assert unit.store.find(case.request_id) == case
    unit.clock.at += timedelta(days=1)
    images = unit.desk.retention._images
    broken = images.remove

    def fail(_sha256: str) -> None:
        raise DependencyUnavailable("stopped")

    images.remove = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(DependencyUnavailable):
        file.end.turn()
    images.remove = broken  # type: ignore[method-assign]
    file.end.turn()
    ended = unit.store.find(case.request_id)
    assert ended is not None
    assert (ended.state, ended.erasure is not None) == (CaseState.CLOSED, True)
    assert not any(images.has(sha256) for sha256 in ended.pictures_ever())
    assert unit.audit.of("erase") == ["INTENT", "FAILED", "INTENT", "DONE"]
    assert unit.audit.entries[-1]["person"] == "service:review"
    count = len(unit.audit.entries)
    file.end.turn()
    assert len(unit.audit.entries) == count


def test_a_clock_that_is_years_ahead_erases_nothing_before_somebody_can_set_it_right(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    file.turn_after(1)
    unit.clock.at += timedelta(days=3000)
    for _ in range(3):
        file.end.turn()
        file.search.turn()
        unit.clock.pass_s(6 * HOUR)
    assert unit.store.find(case.request_id) == case
    assert file.see(ANNA, case.request_id).state is KeptState.ENDED
    unit.clock.at -= timedelta(days=3000)
    file.end.turn()
    assert file.see(ANNA, case.request_id).state is KeptState.WAITING
    file.turn_after(7)
    assert len(file.searches.asked) == 2, "and it is searched again as before"


def test_a_clock_that_was_ahead_leaves_no_case_out_and_nobody_unseen(unit: Unit, file: File) -> None:
    case = unsolved(unit)
    unit.clock.at += timedelta(days=100)
    file.turn_after(1)
    unit.clock.at -= timedelta(days=100)
    file.turn_after(1)
    [ahead, after] = file.searches.asked
    # Who came in since would be older than the moment at which it was searched last.
    assert after.since_ms == ahead.since_ms == int(case.searches[0].searched_at.timestamp() * 1000)
    assert after.unless_snapshot == ""
