"""A database of its own for each test that needs PostgreSQL."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.stack.servers.postgres import postgres_server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The server whose URL is in LIKENESS_STACK_POSTGRES, or one that is started for the session."""
    running = os.environ.get("LIKENESS_STACK_POSTGRES")
    if running:
        yield running
        return
    server, url = postgres_server()
    server.start()
    yield url
    server.discard()


@pytest.fixture
def audit_database_url(postgres_url: str) -> Iterator[str]:
    name = f"audit_{secrets.token_hex(6)}"
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
