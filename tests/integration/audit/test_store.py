"""The log's store on SQLite, and on PostgreSQL where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.audit.adapters.sql_log_store import SqlLogStore
from services.shared.errors import AuditUnavailable, ConfigurationError
from services.shared.ids import new_id
from tests.integration.audit.store_contract import NOW, PATIENT_S, LogStoreContract, OpenStore, store_of
from tests.unit.audit.builders import local_log, statement


@pytest.fixture
def opened() -> Iterator[list[SqlLogStore]]:
    stores: list[SqlLogStore] = []
    yield stores
    for store in stores:
        store.close()


class TestSqlite(LogStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path, opened: list[SqlLogStore]) -> OpenStore:
        def open_again(write_timeout_s: float = PATIENT_S) -> SqlLogStore:
            opened.append(store_of(f"sqlite:///{tmp_path / 'audit.sqlite'}", write_timeout_s))
            return opened[-1]

        return open_again

    def test_replacing_is_refused_too(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        change = "INSERT OR REPLACE INTO log (log_id, created_at) SELECT log_id, 'x' FROM log"
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), store.engine.begin() as connection:
            connection.execute(sa.text(change))

    def test_commits_are_flushed(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        with store.engine.connect() as connection:
            assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
            assert connection.scalar(sa.text("PRAGMA synchronous")) == 2


@pytest.mark.stack
class TestPostgresql(LogStoreContract):
    @pytest.fixture
    def open_store(self, audit_database_url: str, opened: list[SqlLogStore]) -> OpenStore:
        def open_again(write_timeout_s: float = PATIENT_S) -> SqlLogStore:
            opened.append(store_of(audit_database_url, write_timeout_s))
            return opened[-1]

        return open_again

    def test_truncating_is_refused_too(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), store.engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE entry"))

    def test_the_log_runs_on_it(self, tmp_path: Path, open_store: OpenStore) -> None:
        for start in (0, 30):
            with local_log(tmp_path, store=open_store(), entries=10) as local:
                assert local.log.append(statement(0)).sequence == start
                local.fill(29)
                assert local.log.checkpoint(fresh=True).tree_size == start + 30

    def test_a_server_that_is_away_is_told_in_time(self, opened: list[SqlLogStore]) -> None:
        opened.append(store_of("postgresql+psycopg://nobody:none@127.0.0.1:1/none?connect_timeout=1"))
        with pytest.raises(AuditUnavailable):
            opened[0].open(new_id(), NOW)


@pytest.mark.parametrize("url", ["no url", "nothing://x", "sqlite:////proc/nowhere/audit.sqlite"])
def test_a_wrong_url_is_told_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError, match="audit store cannot be used"):
        store_of(url)
