"""The outbox table."""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.schema import outbox
from services.ingest.adapters.sql_queries import reading
from services.shared.ports.event_log import Event


class SqlOutbox:
    """See services.ingest.ports.Outbox."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter) -> None:
        self._engine = engine
        self._committer = committer

    def oldest(self, limit: int) -> Sequence[tuple[int, Event]]:
        query = sa.select(outbox).order_by(outbox.c.id).limit(limit)
        with reading(self._engine) as connection:
            return [
                (row.id, Event(row.topic, row.key, row.value, json.loads(row.headers)))
                for row in connection.execute(query)
            ]

    def remove(self, ids: Sequence[int]) -> None:
        query = sa.delete(outbox).where(outbox.c.id.in_(ids))
        self._committer.run(lambda connection: connection.execute(query).rowcount)

    def count(self) -> int:
        with reading(self._engine) as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(outbox)) or 0)
