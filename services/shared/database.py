"""Relational stores: one engine a service, its own schema, migrated by Alembic at start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock

import sqlalchemy as sa
from sqlalchemy import event

from services.shared.errors import ConfigurationError, DependencyUnavailable
from services.shared.settings import DatabaseSettings

_MIGRATION_LOCK = 0x4C494B4D  # any number that no other advisory lock of these databases has

# A server whose machine or network is gone does not say so: without these a statement waits for the kernel's two hours.
_LOST_NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


def create_engine(settings: DatabaseSettings) -> sa.Engine:
    """An engine with durable commits: PostgreSQL as it is; SQLite in WAL mode, synchronous=FULL, foreign keys on."""
    url = sa.make_url(settings.url)
    # Parameters are templates and personal data: they stay out of errors, and so out of logs.
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(
            url,
            pool_size=settings.pool_size,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={name: value for name, value in _LOST_NETWORK.items() if name not in url.query},
        )
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": 30}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


class AlreadyStored(DependencyUnavailable):
    """What was to be stored contradicts a key that is stored: whoever stored it was quicker."""


@contextmanager
def transaction(engine: sa.Engine, detail: str, owner: str) -> Iterator[sa.Connection]:
    """One transaction, committed at the end of the block.

    Raises DependencyUnavailable with `detail`, what cannot be done now, when the database of `owner` cannot do it;
    AlreadyStored, which is one, when a constraint forbids it.
    """
    advice = f"Try again in a few seconds; operators: check the database of {owner} and its disk."
    try:
        with engine.begin() as connection:
            yield connection
    except sa.exc.IntegrityError as error:
        raise AlreadyStored(detail, advice=advice) from error
    except sa.exc.SQLAlchemyError as error:
        raise DependencyUnavailable(detail, advice=advice) from error


def one_writer(engine: sa.Engine) -> AbstractContextManager[object]:
    """What the writers of a store hold, each for one transaction; nothing where the database has many writers.

    SQLite has one; those who wait for it look again ever less often, up to ten times a second, and some of them for a
    second. Waiting for a lock in turn they wait for milliseconds.
    """
    return Lock() if engine.dialect.name == "sqlite" else nullcontext()


def migrate(engine: sa.Engine, migrations: Path) -> None:
    """Bring the schema to the newest version; `migrations` is a service's Alembic folder.

    Processes of one service that start together on PostgreSQL take turns: the first migrates, the others find it done.
    Raises ConfigurationError for a schema of a newer version.
    """
    if _is_newest(engine, migrations):
        return
    # Alembic takes as long to import as the rest of a service; most starts have nothing to migrate.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.attributes["engine"] = engine
    try:
        with _alone(engine):
            command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"The store's schema is of another version than this one's: {error}.",
            advice="Run the version that wrote it, or restore a backup from before (docs/operations/upgrade.md).",
        ) from error


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    if engine.dialect.name != "postgresql":
        yield  # an embedded store has one process
        return
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
        try:
            yield
        finally:
            connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})


def _is_newest(engine: sa.Engine, migrations: Path) -> bool:
    """Whether the schema stands at the one head of the folder; False whenever that is not certain."""
    scripts = [path.read_text("utf-8") for path in (migrations / "versions").glob("*.py")]
    revisions = {revision for script in scripts for revision in _REVISION.findall(script)}
    heads = revisions - {revision for script in scripts for revision in _DOWN_REVISION.findall(script)}
    named = _VERSION_TABLE.search((migrations / "env.py").read_text("utf-8"))
    table = sa.table(named.group(1) if named else "alembic_version", sa.column("version_num"))
    try:
        with engine.connect() as connection:
            standing = set(connection.execute(sa.select(table.c.version_num)).scalars())
    except sa.exc.SQLAlchemyError:
        return False
    return len(heads) == 1 and standing == heads


_REVISION = re.compile(r"^revision\b[^=]*= *[\"'](\w+)[\"']", re.MULTILINE)
_DOWN_REVISION = re.compile(r"^down_revision\b[^=]*= *[\"'](\w+)[\"']", re.MULTILINE)
_VERSION_TABLE = re.compile(r"version_table *= *[\"'](\w+)[\"']")
