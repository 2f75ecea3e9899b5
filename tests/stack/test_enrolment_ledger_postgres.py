"""The enrolment ledger on a real PostgreSQL: its contract."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.contract.test_enrolment_ledger import Ledgers, TestEnrolmentLedger, open_ledgers

__all__ = ["TestEnrolmentLedger"]


@pytest.fixture
def ledgers(postgres_url: str) -> Iterator[Ledgers]:
    name = f"ingest_{secrets.token_hex(6)}"
    server = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield from open_ledgers(sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False))
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()
