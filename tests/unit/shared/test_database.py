"""Migrating at start: run when there is something to migrate, and not even imported when there is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.shared.database import AlreadyStored, create_engine, migrate, transaction
from services.shared.errors import ConfigurationError, DependencyUnavailable
from services.shared.settings import DatabaseSettings

_ENV = """
from alembic import context
with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, version_table="x_schema_version")
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
"""
_SCRIPT = """
from alembic import op
import sqlalchemy as sa
revision = "{revision}"
down_revision = {down}
def upgrade():
    op.create_table("made_by_{revision}", sa.Column("id", sa.Integer))
"""

AddRevision = Callable[[str, str | None], None]


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(_ENV)
    return folder


@pytest.fixture
def add(migrations: Path) -> AddRevision:
    def write(revision: str, down: str | None) -> None:
        script = _SCRIPT.format(revision=revision, down=repr(down))
        (migrations / "versions" / f"{revision}.py").write_text(script)

    return write


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    return create_engine(DatabaseSettings(url=f"sqlite:///{tmp_path}/x.sqlite"))


def test_a_new_revision_is_applied_to_a_store_of_an_older_one(
    migrations: Path, add: AddRevision, engine: sa.Engine
) -> None:
    add("0001", None)
    migrate(engine, migrations)
    add("0002", "0001")
    migrate(engine, migrations)
    assert {"made_by_0001", "made_by_0002"} <= set(sa.inspect(engine).get_table_names())


def test_a_store_of_a_newer_version_is_refused_with_what_to_do(
    migrations: Path, add: AddRevision, engine: sa.Engine
) -> None:
    add("0001", None)
    migrate(engine, migrations)
    (migrations / "versions" / "0001.py").unlink()
    add("0000", None)
    with pytest.raises(ConfigurationError) as refused:
        migrate(engine, migrations)
    assert "restore a backup" in refused.value.advice


def test_another_services_version_in_the_same_store_does_not_count(
    migrations: Path, add: AddRevision, engine: sa.Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num TEXT)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('0001')"))
    add("0001", None)
    migrate(engine, migrations)
    assert "made_by_0001" in sa.inspect(engine).get_table_names()


def test_a_store_that_is_newest_does_not_wait_for_alembic(
    migrations: Path, add: AddRevision, engine: sa.Engine, tmp_path: Path
) -> None:
    add("0001", None)
    migrate(engine, migrations)
    script = (
        "import sys; from pathlib import Path\n"
        "from services.shared.database import create_engine, migrate\n"
        "from services.shared.settings import DatabaseSettings\n"
        f"migrate(create_engine(DatabaseSettings(url='sqlite:///{tmp_path}/x.sqlite')), Path('{migrations}'))\n"
        "sys.exit('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_stored_already_is_told_from_a_store_that_cannot_be_used(engine: sa.Engine) -> None:
    things = sa.Table("things", sa.MetaData(), sa.Column("name", sa.Text, primary_key=True))
    with (
        pytest.raises(DependencyUnavailable, match="Not now") as missing,
        transaction(engine, "Not now.", "x") as store,
    ):
        store.execute(sa.insert(things), {"name": "a"})
    assert not isinstance(missing.value, AlreadyStored)
    things.create(engine)
    with transaction(engine, "Not now.", "x") as store:
        store.execute(sa.insert(things), {"name": "a"})
    with pytest.raises(AlreadyStored, match="Not now"), transaction(engine, "Not now.", "x") as store:
        store.execute(sa.insert(things), [{"name": "c"}, {"name": "a"}])
    with transaction(engine, "Not now.", "x") as store:
        assert set(store.scalars(sa.select(things.c.name))) == {"a"}
