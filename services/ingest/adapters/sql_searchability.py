"""How many images cannot be searched, by where and when they were taken."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from services.ingest.adapters.life_schema import enrolment_facts
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_queries import reading
from services.ingest.enrolling.enrolment import Source
from services.ingest.life.searchability import Tally


class SqlSearchability:
    """See services.ingest.life.searchability.SearchabilitySource."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def tallies(self, owner: str, watchlist_ids: frozenset[str], first_month: str, last_month: str) -> Sequence[Tally]:
        month = sa.func.substr(enrolments.c.captured_on, 1, 7)
        device = sa.func.coalesce(enrolment_facts.c.capture_device, "")
        columns = (device, month, enrolments.c.state, enrolments.c.reason)
        query = (
            sa.select(*columns, sa.func.count(), sa.func.avg(enrolments.c.unified_quality))
            .select_from(
                sa.outerjoin(enrolments, enrolment_facts, enrolment_facts.c.enrolment_id == enrolments.c.enrolment_id)
            )
            .where(
                enrolments.c.owner == owner,
                enrolments.c.watchlist_id.in_(sorted(watchlist_ids)),
                enrolments.c.source != Source.SYNTHETIC.value,
                month.between(first_month, last_month),
            )
            .group_by(*columns)
        )
        with reading(self._engine) as connection:
            return [
                Tally(row[0], row[1], row[2], row[3], row[4], None if row[5] is None else float(row[5]))
                for row in connection.execute(query)
            ]
