"""A database of its own for each test that needs PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.stack.databases import database_on
from tests.stack.servers.postgres import postgres_server
from tests.stack.servers.session import server_of_session


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The server whose URL is in LIKENESS_STACK_POSTGRES, or one that is started for the session."""
    yield from server_of_session(os.environ.get("LIKENESS_STACK_POSTGRES"), postgres_server)


@pytest.fixture
def audit_database_url(postgres_url: str) -> Iterator[str]:
    with database_on(postgres_url) as url:
        yield url
