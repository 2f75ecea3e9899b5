"""Relational stores: one engine a service, its own schema, migrated by Alembic at start."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import event

from services.shared.settings import DatabaseSettings


def create_engine(settings: DatabaseSettings) -> sa.Engine:
    """An engine with durable commits: PostgreSQL as it is; SQLite in WAL mode, synchronous=FULL, foreign keys on."""
    url = sa.make_url(settings.url)
    # Parameters are templates and personal data: they stay out of errors, and so out of logs.
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_size=settings.pool_size, pool_pre_ping=True, hide_parameters=True)
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


def migrate(engine: sa.Engine, migrations: Path) -> None:
    """Bring the schema to the newest version; `migrations` is a service's Alembic folder."""
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.attributes["engine"] = engine
    command.upgrade(config, "head")
