"""Whose turn it is among the inputs of one owner: within this process, or on PostgreSQL among all of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Condition

import sqlalchemy as sa

from services.ingest.adapters.sql_queries import reading
from services.ingest.life.custody import OwnerTurns
from services.shared.errors import DependencyUnavailable

_WAIT_S = 30.0  # what holds a turn does a few writes; longer than this, something is wrong with the store
_LOCKS = 0x4355  # the advisory locks of this purpose, apart from others of the same database


def owner_turns(engine: sa.Engine) -> OwnerTurns:
    """An embedded store has one process; PostgreSQL may have several."""
    return PostgresTurns(engine) if engine.dialect.name == "postgresql" else LocalTurns()


class LocalTurns:
    """See services.ingest.life.custody.OwnerTurns. Who waits to be alone goes before those who come after."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._sharing: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._alone: set[str] = set()

    def shared(self, owner: str) -> AbstractContextManager[None]:
        return self._share(owner)

    def alone(self, owner: str) -> AbstractContextManager[None]:
        return self._be_alone(owner)

    @contextmanager
    def _share(self, owner: str) -> Iterator[None]:
        with self._changed:
            if not self._changed.wait_for(lambda: owner not in self._alone and not self._waiting[owner], _WAIT_S):
                raise _too_long()
            self._sharing[owner] += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing[owner] -= 1
                self._changed.notify_all()

    @contextmanager
    def _be_alone(self, owner: str) -> Iterator[None]:
        with self._changed:
            self._waiting[owner] += 1
            try:
                if not self._changed.wait_for(lambda: owner not in self._alone and not self._sharing[owner], _WAIT_S):
                    raise _too_long()
                self._alone.add(owner)
            finally:
                self._waiting[owner] -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._alone.discard(owner)
                self._changed.notify_all()


class PostgresTurns:
    """See services.ingest.life.custody.OwnerTurns: advisory locks of transactions, on connections of their own, so
    that those who hold a turn never wait for a connection that those who wait for a turn hold."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = sa.create_engine(engine.url, pool=engine.pool.recreate(), hide_parameters=True)

    def shared(self, owner: str) -> AbstractContextManager[None]:
        return self._locked("SELECT pg_advisory_xact_lock_shared(:purpose, :owner)", owner)

    def alone(self, owner: str) -> AbstractContextManager[None]:
        return self._locked("SELECT pg_advisory_xact_lock(:purpose, :owner)", owner)

    @contextmanager
    def _locked(self, statement: str, owner: str) -> Iterator[None]:
        number = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4], "big", signed=True)
        with reading(self._engine) as connection:
            connection.execute(sa.text(f"SET LOCAL lock_timeout = {int(_WAIT_S * 1000)}"))
            connection.execute(sa.text(statement), {"purpose": _LOCKS, "owner": number})
            yield


def _too_long() -> DependencyUnavailable:
    return DependencyUnavailable(
        "Another input of the same owner holds the ledger for too long.", advice="Operators: check its disk or server."
    )
