"""Every service's schema and the ledger's contract on PostgreSQL, each test in a database of its own."""

from __future__ import annotations

import importlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import services
from services.ingest.adapters.owner_turns import owner_turns
from services.search.adapters.schema import metadata as search_metadata
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.image_keys import ImageKeys
from services.shared.adapters.master_key import MasterKeyFile
from services.shared.adapters.self_sealing_image_store import SelfSealingImageStore
from services.shared.database import create_engine, migrate
from services.shared.settings import DatabaseSettings
from tests.contract import test_enrolment_ledger as contract
from tests.contract import test_owner_turns as turns_contract
from tests.integration.audit.store_contract import store_of
from tests.unit.audit.builders import local_log, statement
from tests.unit.ingest import test_acceptance as uploads

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
        errors = [started.communicate(timeout=240)[1] for started in starts]
        assert [(started.returncode, error) for started, error in zip(starts, errors, strict=True)] == [(0, b"")] * 3

    def test_replicas_that_start_together_on_an_empty_server_share_the_keys(
        self, database_url: str, tmp_path: Path
    ) -> None:
        """Search and ingest in a cluster: one key table, one master key file, several pods."""

        def open_keys(_: int) -> ImageKeys:
            return ImageKeys(
                create_engine(DatabaseSettings(url=database_url)), MasterKeyFile(tmp_path / "keys" / "master.key")
            )

        with ThreadPoolExecutor(6) as pool:
            replicas = list(pool.map(open_keys, range(6)))
            folder = FolderImageStore(tmp_path / "probes")
            stores = [SelfSealingImageStore(folder, keys, renew_after_s=3600) for keys in replicas]
            names = list(pool.map(lambda number: stores[number].put(b"probe %d" % number), range(6)))
            assert [stores[-1 - number].get(name) for number, name in enumerate(names)] == [
                b"probe %d" % number for number in range(6)
            ]
            for number in range(3):
                stores[number].remove(names[number])
            list(pool.map(lambda store: store.renew(), stores))
        for store in stores:
            assert [store.has(name) for name in names] == [False] * 3 + [True] * 3
            assert store.get(names[5]) == b"probe 5"
        for keys in replicas:
            assert keys.count() == 3
            keys.close()

    def test_searchs_tables_are_those_of_the_code(self, engine: sa.Engine) -> None:
        importlib.import_module("services.search.bootstrap")  # its parts bring tables of their own
        migrate(engine, MIGRATIONS["search"])
        with engine.connect() as connection:
            configured = MigrationContext.configure(connection, opts={"version_table": "search_schema_version"})
            assert compare_metadata(configured, search_metadata) == []


class TestEnrolmentLedger(contract.TestEnrolmentLedger):
    """The ledger's contract, held on PostgreSQL."""

    @pytest.fixture
    def ledgers(self, database_url: str) -> Iterator[contract.Ledgers]:
        yield from contract.open_ledgers(database_url)


class TestOwnerTurns(turns_contract.TestOwnerTurns):
    """Between processes too: by advisory locks."""

    @pytest.fixture
    def turns(self, database_url: str) -> Iterator[turns_contract.Both]:
        engine = create_engine(DatabaseSettings(url=database_url))
        yield turns_contract.Both(owner_turns(engine), owner_turns(engine))
        engine.dispose()


class TestMovedUnderWay(turns_contract.TestMovedUnderWay):
    @pytest.fixture
    def ledgers(self, database_url: str) -> Iterator[contract.Ledgers]:
        yield from contract.open_ledgers(database_url)


class TestErasuresAndUploads:
    """An upload and the erasure of its subject see each other on PostgreSQL too."""

    @pytest.fixture
    def door(self, database_url: str, tmp_path: Path) -> Iterator[uploads.Door]:
        yield from uploads.open_door(database_url, tmp_path)

    def test_what_comes_late_is_refused(self, door: uploads.Door) -> None:
        uploads.test_while_a_subject_is_being_erased_nothing_from_before_comes_to_it(door, uploads.Eraser(door))

    def test_what_was_under_way_goes_along(self, door: uploads.Door) -> None:
        uploads.test_or_it_goes_along_with_the_erasure(door, uploads.Eraser(door))


class TestAppendOnlyRole:
    """The audit service's database role can add and read, and nothing else, whatever the service is made to do."""

    @pytest.fixture
    def writer_url(self, database_url: str, engine: sa.Engine) -> Iterator[str]:
        role, password = f"writer_{secrets.token_hex(4)}", secrets.token_hex(8)
        with engine.begin() as connection:
            connection.execute(sa.text(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'"))
        command = [sys.executable, "-m", "services.shared.migrating", "audit", "--grant-append-only-to", role]
        subprocess.run(
            command, env={**os.environ, "LIKENESS_AUDIT__DATABASE__URL": database_url}, check=True, timeout=240
        )
        yield sa.make_url(database_url).set(username=role, password=password).render_as_string(hide_password=False)
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP OWNED BY {role}"))
            connection.execute(sa.text(f"DROP ROLE {role}"))

    def test_the_log_is_kept_with_it(self, writer_url: str, tmp_path: Path) -> None:
        for start in (0, 20):
            store = store_of(writer_url)
            with local_log(tmp_path, store=store, entries=10) as local:
                assert local.log.append(statement(0)).sequence == start
                local.fill(19)
                assert local.log.checkpoint(fresh=True).tree_size == start + 20
            store.close()

    @pytest.mark.parametrize(
        "act",
        [
            "UPDATE entry SET canonical = ''",
            "DELETE FROM entry",
            "TRUNCATE entry",
            "DROP TABLE entry",
            "ALTER TABLE entry DISABLE TRIGGER ALL",
            "UPDATE checkpoint SET root_hash = ''",
            "DELETE FROM signing_key",
            "CREATE TABLE mine (id int)",
        ],
    )
    def test_nothing_can_be_changed_or_removed(self, writer_url: str, act: str) -> None:
        engine = create_engine(DatabaseSettings(url=writer_url))
        with (
            pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"),
            engine.begin() as connection,
        ):
            connection.execute(sa.text(act))
        engine.dispose()
