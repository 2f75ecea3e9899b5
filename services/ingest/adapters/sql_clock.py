"""The clock's mark in the ledger's store."""

from __future__ import annotations

import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.life_schema import clock_marks
from services.ingest.adapters.sql_queries import reading
from services.ingest.life.clock_guard import ClockMark


class SqlClockMarks:
    """See services.ingest.life.clock_guard.ClockMarks."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter) -> None:
        self._engine = engine
        self._committer = committer

    def read(self) -> ClockMark | None:
        query = sa.select(clock_marks.c.wall_ms, clock_marks.c.distrusted_since_ms, clock_marks.c.why)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else ClockMark(*row)

    def write(self, mark: ClockMark) -> None:
        values = {"wall_ms": mark.wall_ms, "distrusted_since_ms": mark.distrusted_since_ms, "why": mark.why}

        def work(connection: sa.Connection) -> None:
            if not connection.execute(sa.update(clock_marks).values(values)).rowcount:
                connection.execute(sa.insert(clock_marks).values(id=1, **values))

        self._committer.run(work)
