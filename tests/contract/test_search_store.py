"""What the record of searches does, on every database that it may stand on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.search.adapters.schema import metadata
from services.search.adapters.sql_search_store import SqlSearchStore
from services.search.bootstrap import MIGRATIONS
from services.search.ports import Candidate, SearchStatus
from services.shared.database import create_engine, migrate
from services.shared.errors import Conflict, DependencyUnavailable
from services.shared.settings import DatabaseSettings
from services.shared.tokens import Principal
from tests.unit.search.fakes import OPERATOR, REQUEST, ManualClock, new_search

CANDIDATES = [Candidate(1, "S-1", "r-1", "custody", "northshire", 0.5), Candidate(2, "S-2", "r-2", "custody", "e", 0.4)]


@contextmanager
def open_store_at(url: str) -> Iterator[tuple[SqlSearchStore, sa.Engine]]:
    engine = create_engine(DatabaseSettings(url=url))
    migrate(engine, MIGRATIONS)
    yield SqlSearchStore(engine), engine
    engine.dispose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class TestSearchStore:
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[tuple[SqlSearchStore, sa.Engine]]:
        with open_store_at(f"sqlite:///{tmp_path / 'search.sqlite'}") as opened:
            yield opened

    @pytest.fixture
    def store(self, opened: tuple[SqlSearchStore, sa.Engine]) -> SqlSearchStore:
        return opened[0]

    def test_the_migrations_make_the_schema(self, opened: tuple[SqlSearchStore, sa.Engine]) -> None:
        with opened[1].connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": "search_schema_version"})
            assert compare_metadata(context, metadata) == []

    def test_a_search_from_open_to_closed(self, store: SqlSearchStore, clock: ManualClock) -> None:
        search = new_search(clock)
        assert store.open(search) is None
        stored = store.find(search.search_id)
        assert stored is not None
        assert (stored.status, stored.is_closed, stored.result) == (SearchStatus.OPEN, False, None)
        assert stored.principal == Principal("op-7", "northshire", frozenset({"operator"}), frozenset())
        assert (stored.opened_at, stored.opened_at.tzinfo) == (clock.now(), UTC)
        assert stored.outcome_entry_id == search.outcome_entry_id
        assert [unclosed.search_id for unclosed in store.unclosed(10)] == [search.search_id]

        store.finish(search.search_id, b'{"a":1}', CANDIDATES, "model-1")
        store.close({search.search_id: {"total": 12.5}})
        stored = store.find(search.search_id)
        assert stored is not None
        assert (stored.status, stored.is_closed) == (SearchStatus.DONE, True)
        assert (stored.result, stored.timings_ms) == (b'{"a":1}', {"total": 12.5})
        assert store.unclosed(10) == []

    def test_stopping_takes_an_answer_back(self, opened: tuple[SqlSearchStore, sa.Engine], clock: ManualClock) -> None:
        store, engine = opened
        search = new_search(clock)
        store.open(search)
        store.finish(search.search_id, b"{}", CANDIDATES, "model-1")
        store.stop(search.search_id, SearchStatus.FAILED, {"code": "audit_unavailable"})
        stored = store.find(search.search_id)
        assert stored is not None
        assert (stored.status, stored.result, stored.problem) == (
            SearchStatus.FAILED,
            None,
            {"code": "audit_unavailable"},
        )
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM search_candidates")) == 0

    def test_a_key_gives_the_earlier_search_once_that_is_closed(
        self, store: SqlSearchStore, clock: ManualClock
    ) -> None:
        first = new_search(clock, key="k")
        store.open(first)
        with pytest.raises(Conflict) as running:
            store.open(new_search(clock, key="k"))
        assert running.value.code == "search_running"
        store.finish(first.search_id, b"{}", [], "m")
        with pytest.raises(Conflict):  # stored, but its outcome is not known to be in the log
            store.open(new_search(clock, key="k"))
        store.close({first.search_id: None})
        again = new_search(clock, key="k")
        earlier = store.open(again)
        assert earlier is not None
        assert earlier.search_id == first.search_id
        assert store.find(again.search_id) is None

    def test_a_key_is_for_one_request_of_one_person(self, store: SqlSearchStore, clock: ManualClock) -> None:
        store.open(new_search(clock, key="k"))
        with pytest.raises(Conflict) as reused:
            store.open(new_search(clock, key="k", request=replace(REQUEST, offence="robbery")))
        assert reused.value.code == "idempotency_key_reused"
        for other in (replace(OPERATOR, person_id="op-8"), replace(OPERATOR, force="eastmoor")):
            assert store.open(replace(new_search(clock, key="k"), principal=other)) is None

    @pytest.mark.parametrize("status", [SearchStatus.FAILED, SearchStatus.UNKNOWN])
    def test_a_key_whose_search_failed_is_free_for_the_same_request(
        self, store: SqlSearchStore, clock: ManualClock, status: SearchStatus
    ) -> None:
        first, second = new_search(clock, key="k"), new_search(clock, key="k")
        store.open(first)
        store.stop(first.search_id, status, {"code": "x"})
        store.close({first.search_id: None})
        assert store.open(second) is None
        store.finish(second.search_id, b"{}", [], "m")
        store.close({second.search_id: None})
        earlier = store.open(new_search(clock, key="k"))
        assert earlier is not None
        assert earlier.search_id == second.search_id
        assert store.find(first.search_id) is not None

    def test_of_twins_one_wins(self, store: SqlSearchStore, clock: ManualClock) -> None:
        def try_to_open(_number: int) -> bool:
            try:
                return store.open(new_search(clock, key="k")) is None
            except Conflict:
                return False

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(try_to_open, range(40))) == 1
        assert len(store.unclosed(100)) == 1

    def test_a_store_that_is_gone_is_a_fault_of_the_platform(
        self, opened: tuple[SqlSearchStore, sa.Engine], clock: ManualClock
    ) -> None:
        store, engine = opened
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE search_idempotency_keys"))
            connection.execute(sa.text("DROP TABLE search_candidates"))
            connection.execute(sa.text("DROP TABLE disclosure_approvals"))
            connection.execute(sa.text("DROP TABLE searches"))
        with pytest.raises(DependencyUnavailable) as fault:
            store.open(new_search(clock))
        assert "INSERT" not in fault.value.detail
