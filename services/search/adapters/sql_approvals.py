"""Approvals of disclosures in a relational store, through SQLAlchemy: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

import sqlalchemy as sa

from services.search.adapters.schema import disclosure_approvals
from services.search.disclosure.approvals import Approval
from services.shared.errors import DependencyUnavailable

_UNUSED = disclosure_approvals.c.used_at.is_(None)


class SqlApprovals:
    """ApprovalStore on one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def add(self, approval: Approval) -> None:
        with self._transaction() as connection:
            connection.execute(sa.insert(disclosure_approvals), asdict(approval))

    def find(self, approval_id: str) -> Approval | None:
        table = disclosure_approvals
        query = sa.select(table).where(table.c.approval_id == approval_id, _UNUSED)
        with self._transaction() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        texts = {name: str(row[name]) for name in ("approval_id", "search_id", "recipient", "reason", "approved_by")}
        return Approval(**texts, approved_at=_utc(row["approved_at"]), expires_at=_utc(row["expires_at"]))

    def use(self, approval_id: str, at: datetime) -> bool:
        table = disclosure_approvals
        change = sa.update(table).where(table.c.approval_id == approval_id, _UNUSED).values(used_at=at)
        with self._transaction() as connection:
            return connection.execute(change).rowcount == 1

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise DependencyUnavailable(
                "Approvals cannot be read, so nothing is disclosed.",
                advice="Try again in a few seconds; operators: check the database of search and its disk.",
            ) from error


def _utc(moment: datetime) -> datetime:
    """SQLite gives back what was stored without its zone, which is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
