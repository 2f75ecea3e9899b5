"""Open acts in a relational store, through SQLAlchemy: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.rpc.open_acts import OpenAct
from services.rpc.v1 import audit_pb2
from services.shared.database import transaction
from services.shared.tokens import Principal


def open_acts_table(name: str, metadata: sa.MetaData) -> sa.Table:
    """Acts whose intent may be in the log and whose outcome is not known to be. Each service has a table of its own."""
    return sa.Table(
        name,
        metadata,
        sa.Column("activity_id", sa.String(36), primary_key=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("act", sa.JSON, nullable=False),
    )


class SqlOpenActs:
    """OpenActStore on one engine, in a service's table (`open_acts_table`)."""

    def __init__(self, engine: sa.Engine, table: sa.Table) -> None:
        self._engine = engine
        self._table = table

    def add(self, act: OpenAct, opened_at: datetime) -> None:
        row = {"activity_id": act.activity_id, "opened_at": opened_at.astimezone(UTC), "act": _value(act)}
        with self._transaction() as connection:
            connection.execute(sa.insert(self._table), row)

    def remove(self, activity_id: str) -> None:
        with self._transaction() as connection:
            connection.execute(sa.delete(self._table).where(self._table.c.activity_id == activity_id))

    def keep(self, activity_ids: Sequence[str], moment: datetime) -> None:
        kept = sa.update(self._table).where(self._table.c.activity_id.in_(activity_ids))
        with self._transaction() as connection:
            connection.execute(kept.values(opened_at=moment.astimezone(UTC)))

    def opened_before(self, moment: datetime, limit: int) -> Sequence[OpenAct]:
        query = (
            sa.select(self._table.c.act)
            .where(self._table.c.opened_at < moment.astimezone(UTC))
            .order_by(self._table.c.opened_at)
            .limit(limit)
        )
        with self._transaction() as connection:
            return [_act(value) for value in connection.execute(query).scalars()]

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "What is begun cannot be noted, so it is not begun.", "the service")


def _value(act: OpenAct) -> dict[str, Any]:
    who = act.principal
    return {
        "activity": act.activity,
        "operation": audit_pb2.Operation.Name(act.operation),
        "person_id": who.person_id,
        "force": who.force,
        "roles": sorted(who.roles),
        "objects": list(act.objects),
        "details": dict(act.details),
        "purpose": act.purpose,
        "case_reference": act.case_reference,
        "version": act.version,
        "recipients": list(act.recipients),
        "activity_id": act.activity_id,
        "intent_entry_id": act.intent_entry_id,
        "outcome_entry_id": act.outcome_entry_id,
    }


def _act(value: Mapping[str, Any]) -> OpenAct:
    who = Principal(value["person_id"], value["force"], frozenset(value["roles"]), frozenset())
    others = {name: value[name] for name in value if name not in {"person_id", "force", "roles", "operation"}}
    return OpenAct(principal=who, operation=audit_pb2.Operation.Value(value["operation"]), **others)
