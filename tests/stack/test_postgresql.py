"""Every service's schema and the ledger's contract on PostgreSQL, each test in a database of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import services
from services.search.adapters.schema import metadata as search_metadata
from services.shared.database import create_engine, migrate
from services.shared.settings import DatabaseSettings
from tests.contract import test_enrolment_ledger as contract

# Found by themselves, so that a service that begins to store something is tested from then on.
MIGRATIONS = {path.parent.name: path for path in Path(services.__path__[0]).glob("*/migrations")}

_MIGRATE = """
import pathlib, sys
from services.shared.database import create_engine, migrate
from services.shared.settings import DatabaseSettings
migrate(create_engine(DatabaseSettings(url=sys.argv[1])), pathlib.Path(sys.argv[2]))
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = create_engine(DatabaseSettings(url=database_url))
    yield made
    made.dispose()


def tables(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


class TestMigrations:
    def test_every_service_that_stores_something_is_found(self) -> None:
        assert {"ingest", "search", "audit"} <= MIGRATIONS.keys()

    @pytest.mark.parametrize("service", sorted(MIGRATIONS))
    def test_they_run_and_running_again_changes_nothing(self, engine: sa.Engine, service: str) -> None:
        migrate(engine, MIGRATIONS[service])
        made = tables(engine)
        assert len(made) > 1
        migrate(engine, MIGRATIONS[service])
        assert tables(engine) == made

    @pytest.mark.parametrize("service", ["ingest", "search"])
    def test_processes_that_start_together_migrate_once(self, database_url: str, service: str) -> None:
        starts = [
            subprocess.Popen([sys.executable, "-c", _MIGRATE, database_url, str(MIGRATIONS[service])], stderr=PIPE)
            for _ in range(3)
        ]
        errors = [started.communicate(timeout=60)[1] for started in starts]
        assert [(started.returncode, error) for started, error in zip(starts, errors, strict=True)] == [(0, b"")] * 3

    def test_searchs_tables_are_those_of_the_code(self, engine: sa.Engine) -> None:
        migrate(engine, MIGRATIONS["search"])
        with engine.connect() as connection:
            configured = MigrationContext.configure(connection, opts={"version_table": "search_schema_version"})
            assert compare_metadata(configured, search_metadata) == []


class TestEnrolmentLedger(contract.TestEnrolmentLedger):
    """The ledger's contract, held on PostgreSQL."""

    @pytest.fixture
    def ledgers(self, database_url: str) -> Iterator[contract.Ledgers]:
        yield from contract.open_ledgers(database_url)
