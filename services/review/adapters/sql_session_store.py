"""Sessions of the console in a relational store, beside casework."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.review.adapters.schema import ended_sessions, sessions
from services.review.console.session_store import Ended, StoredSession
from services.shared.database import one_writer, transaction


class SqlSessionStore:
    """SessionStore on one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writing = one_writer(engine)

    def begin(self, session: StoredSession) -> None:
        row = {
            "key": session.key,
            "person_id": session.person_id,
            "started_at": session.started_at.astimezone(UTC),
            "seen_at": session.seen_at.astimezone(UTC),
            "sealed": session.sealed,
            "address": session.address,
            "agent": session.agent,
            "replaced": session.replaced,
        }
        with self._writing, self._transaction() as connection:
            _end(connection, sessions.c.person_id == session.person_id, Ended.ELSEWHERE)
            connection.execute(sa.insert(sessions), row)

    def find(self, key: str) -> StoredSession | None:
        with self._transaction() as connection:
            row = connection.execute(sa.select(sessions).where(sessions.c.key == key)).one_or_none()
        return None if row is None else _session(row)

    def of(self, person_id: str) -> Sequence[StoredSession]:
        wanted = sa.select(sessions).where(sessions.c.person_id == person_id).order_by(sessions.c.seen_at.desc())
        with self._transaction() as connection:
            return [_session(row) for row in connection.execute(wanted)]

    def touch(self, key: str, seen_at: datetime) -> None:
        later = sa.and_(sessions.c.key == key, sessions.c.seen_at < seen_at.astimezone(UTC))
        with self._writing, self._transaction() as connection:
            connection.execute(sa.update(sessions).where(later).values(seen_at=seen_at.astimezone(UTC)))

    def reseal(self, key: str, before: bytes, after: bytes) -> bool:
        same = sa.and_(sessions.c.key == key, sessions.c.sealed == before)
        with self._writing, self._transaction() as connection:
            return connection.execute(sa.update(sessions).where(same).values(sealed=after)).rowcount == 1

    def end(self, key: str, why: Ended | None = None) -> None:
        with self._writing, self._transaction() as connection:
            _end(connection, sessions.c.key == key, why)

    def why_ended(self, key: str) -> Ended | None:
        with self._transaction() as connection:
            why = connection.scalar(sa.select(ended_sessions.c.why).where(ended_sessions.c.key == key))
        return None if why is None else Ended(why)

    def end_before(self, seen_before: datetime, started_before: datetime) -> None:
        too_old = started_before.astimezone(UTC)
        with self._writing, self._transaction() as connection:
            _end(connection, sessions.c.started_at <= too_old, Ended.AGE)
            _end(connection, sessions.c.seen_at <= seen_before.astimezone(UTC), Ended.IDLE)
            connection.execute(sa.delete(ended_sessions).where(ended_sessions.c.seen_at <= too_old))

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The record of sessions cannot be used.", "review")


def _end(connection: sa.Connection, which: sa.ColumnElement[bool], why: Ended | None) -> None:
    """Of two who end one at once only the first gets it back from the database, and writes down why."""
    gone = connection.execute(sa.delete(sessions).where(which).returning(sessions.c.key, sessions.c.seen_at)).all()
    if gone and why is not None:
        rows = [{"key": one.key, "why": why.value, "seen_at": one.seen_at} for one in gone]
        connection.execute(sa.insert(ended_sessions), rows)


def _session(row: sa.Row[Any]) -> StoredSession:
    return StoredSession(
        row.key,
        row.person_id,
        _utc(row.started_at),
        _utc(row.seen_at),
        bytes(row.sealed),
        row.address,
        row.agent,
        row.replaced,
    )


def _utc(moment: datetime) -> datetime:
    """SQLite gives back what was stored without its zone, which is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
