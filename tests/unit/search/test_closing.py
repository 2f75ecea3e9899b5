from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.rpc.v1 import audit_pb2
from services.search.adapters.sql_search_store import SqlSearchStore
from services.search.identification.closing import Closing
from services.search.ports import NewSearch, SearchStatus, StoredSearch
from services.shared.errors import AuditUnavailable
from tests.unit.search.fakes import ManualClock, MemoryAudit, new_search, open_store, trail_to

ORPHAN_AGE_S = 20.0


class Setup:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.audit = MemoryAudit()
        self.trail = trail_to(self.audit, self.clock)
        self.store, self.engine = open_store(folder)
        self.closing = Closing(self.store, self.trail, self.clock, ORPHAN_AGE_S)

    def open(self) -> NewSearch:
        search = new_search(self.clock)
        self.store.open(search)
        return search

    def stored(self, search: NewSearch) -> StoredSearch:
        found = self.store.find(search.search_id)
        assert found is not None
        return found


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path)
    yield setup
    setup.engine.dispose()


def test_a_search_left_open_becomes_unknown_once(setup: Setup) -> None:
    search = setup.open()
    setup.clock.pass_(ORPHAN_AGE_S + 1)
    for _ in range(3):
        setup.closing.sweep()
    assert setup.audit.phases(search.search_id) == ["UNKNOWN"]
    stored = setup.stored(search)
    assert (stored.status, stored.is_closed) == (SearchStatus.UNKNOWN, True)
    assert stored.problem is not None
    assert stored.problem["advice"]


def test_a_search_that_may_still_run_elsewhere_is_left_alone(setup: Setup) -> None:
    search = setup.open()
    setup.clock.pass_(ORPHAN_AGE_S - 1)
    setup.closing.sweep()
    assert setup.audit.phases(search.search_id) == []


def test_a_search_that_runs_here_is_left_alone_however_old(setup: Setup) -> None:
    search = setup.open()
    with setup.closing.running(search.search_id):
        setup.clock.pass_(3600)
        setup.closing.sweep()
        assert setup.audit.phases(search.search_id) == []
    setup.closing.sweep()
    assert setup.audit.phases(search.search_id) == ["UNKNOWN"]


def test_a_refusal_whose_entry_could_not_be_written_is_made_up_for_at_once(setup: Setup) -> None:
    search = setup.open()
    setup.store.stop(search.search_id, SearchStatus.REFUSED, {"code": "no_face_found"})
    setup.audit.is_down = True
    with pytest.raises(AuditUnavailable):
        setup.closing.sweep()
    assert not setup.stored(search).is_closed
    setup.audit.is_down = False
    setup.closing.sweep()
    assert setup.audit.phases(search.search_id) == ["REFUSED"]
    assert setup.audit.entries[search.outcome_entry_id].details["reason"] == "no_face_found"
    assert setup.stored(search).status is SearchStatus.REFUSED


def test_an_answer_whose_entry_is_in_the_log_stands(setup: Setup) -> None:
    """Killed between the outcome's entry and the answer."""
    search = setup.open()
    setup.store.finish(search.search_id, b"{}", [], "m")
    setup.trail.ended(search, audit_pb2.DONE, "as if done")
    setup.clock.pass_(ORPHAN_AGE_S + 1)
    setup.closing.sweep()
    assert setup.audit.phases(search.search_id) == ["DONE"]
    stored = setup.stored(search)
    assert (stored.status, stored.result, stored.is_closed) == (SearchStatus.DONE, b"{}", True)


def test_an_answer_without_an_entry_is_taken_back(setup: Setup) -> None:
    """Killed between storing the answer and its outcome's entry."""
    search = setup.open()
    setup.store.finish(search.search_id, b"{}", [], "m")
    setup.clock.pass_(ORPHAN_AGE_S + 1)
    setup.closing.sweep()
    assert setup.audit.phases(search.search_id) == ["UNKNOWN"]
    stored = setup.stored(search)
    assert (stored.status, stored.result) == (SearchStatus.UNKNOWN, None)


def test_an_entry_without_an_answer_gives_nothing_out(setup: Setup) -> None:
    """Killed between the outcome's entry and storing the answer."""
    search = setup.open()
    setup.trail.ended(search, audit_pb2.DONE, "as if done")
    setup.clock.pass_(ORPHAN_AGE_S + 1)
    setup.closing.sweep()
    assert setup.audit.phases(search.search_id) == ["DONE"]
    stored = setup.stored(search)
    assert (stored.status, stored.is_closed) == (SearchStatus.FAILED, True)


def test_what_was_confirmed_is_flushed_with_its_times(setup: Setup) -> None:
    search = setup.open()
    setup.store.finish(search.search_id, b"{}", [], "m")
    setup.closing.confirm(search.search_id, {"total": 7.5})
    setup.clock.pass_(3600)
    setup.closing.sweep()
    stored = setup.stored(search)
    assert (stored.is_closed, stored.timings_ms) == (True, {"total": 7.5})
    assert setup.audit.phases(search.search_id) == []


def test_what_cannot_be_flushed_is_kept(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    search = setup.open()
    setup.closing.confirm(search.search_id)

    def fail(_self: SqlSearchStore, _closed: object) -> None:
        raise AuditUnavailable("stands for any error")

    with monkeypatch.context() as broken:
        broken.setattr(SqlSearchStore, "close", fail)
        with pytest.raises(AuditUnavailable):
            setup.closing.flush()
    setup.closing.flush()
    assert setup.stored(search).is_closed


def test_what_can_wait_waits_until_no_search_runs_and_no_longer_than_it_said(setup: Setup) -> None:
    assert setup.closing.wait_for_none(60)
    with setup.closing.running("one"):
        assert not setup.closing.wait_for_none(0)
        with ThreadPoolExecutor(1) as pool, setup.closing.running("two"):
            waiting = pool.submit(setup.closing.wait_for_none, 0.01)
            assert waiting.result(60) is False
    with ThreadPoolExecutor(1) as pool:
        with setup.closing.running("three"):
            waiting = pool.submit(setup.closing.wait_for_none, 60)
        assert waiting.result(60) is True
