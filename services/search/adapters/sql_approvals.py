"""Approvals of disclosures in a relational store, through SQLAlchemy: SQLite or PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime

import sqlalchemy as sa

from services.search.adapters.schema import disclosure_approvals
from services.search.disclosure.approvals import Approval
from services.shared.database import transaction

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

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "Approvals cannot be read, so nothing is disclosed.", "search")


def _utc(moment: datetime) -> datetime:
    """SQLite gives back what was stored without its zone, which is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
