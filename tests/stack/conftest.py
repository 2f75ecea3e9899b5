"""The real servers, one of each a session, started when the first test asks for it.

Where one runs already, its address is taken from the environment instead: LIKENESS_STACK_KAFKA (host:port),
LIKENESS_STACK_MILVUS (URI), LIKENESS_STACK_S3_ENDPOINT with LIKENESS_STACK_S3_ACCESS_KEY and …_SECRET_KEY,
LIKENESS_STACK_POSTGRES (SQLAlchemy URL of a user who may create databases). Tests use names of their own on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.databases import database_on
from tests.stack.servers.kafka import kafka_server
from tests.stack.servers.milvus import milvus_server
from tests.stack.servers.minio import S3Address, s3_server
from tests.stack.servers.postgres import postgres_server
from tests.stack.servers.session import server_of_session

_HERE = Path(__file__).parent
_TIMEOUT_S = 1800  # MinIO compiles for minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the servers; the first test of each server may have to install it."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.stack)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


@pytest.fixture(scope="session")
def kafka_address() -> Iterator[str]:
    yield from server_of_session(os.environ.get("LIKENESS_STACK_KAFKA"), kafka_server)


@pytest.fixture(scope="session")
def milvus_uri() -> Iterator[str]:
    yield from server_of_session(os.environ.get("LIKENESS_STACK_MILVUS"), milvus_server)


@pytest.fixture(scope="session")
def s3_address() -> Iterator[S3Address]:
    running = None
    if endpoint := os.environ.get("LIKENESS_STACK_S3_ENDPOINT"):
        keys = os.environ["LIKENESS_STACK_S3_ACCESS_KEY"], os.environ["LIKENESS_STACK_S3_SECRET_KEY"]
        running = S3Address(endpoint, *keys, "s3")
    yield from server_of_session(running, s3_server)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    yield from server_of_session(os.environ.get("LIKENESS_STACK_POSTGRES"), postgres_server)


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """An empty database, dropped after the test."""
    with database_on(postgres_url) as url:
        yield url
