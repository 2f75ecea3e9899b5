"""When references were candidates, from the record of searches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from services.rpc.v1 import search_pb2
from services.search.adapters.schema import candidates, searches
from services.search.ports import SearchStatus
from services.shared.clock import rfc3339
from services.shared.errors import DependencyUnavailable, InvalidRequest

MAX_REFERENCES = 1000


class SqlReturns:
    """Reads answered searches alone: what was never answered was never disclosed."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def of(self, owner: str, reference_ids: Sequence[str]) -> list[search_pb2.ReturnedCandidate]:
        """In the order of time. Raises InvalidRequest, DependencyUnavailable."""
        if not owner or len(reference_ids) > MAX_REFERENCES:
            raise InvalidRequest("No owner, or over 1,000 references.", advice="Ask in parts.")
        query = (
            sa.select(
                searches.c.search_id,
                searches.c.opened_at,
                searches.c.purpose,
                searches.c.force,
                candidates.c.watchlist_id,
                candidates.c.reference_id,
            )
            .join(searches, searches.c.search_id == candidates.c.search_id)
            .where(
                candidates.c.reference_id.in_(reference_ids),
                candidates.c.owner == owner,
                searches.c.status == SearchStatus.DONE.value,
            )
            .order_by(searches.c.opened_at, searches.c.search_id)
        )
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(query).all()
        except sa.exc.DBAPIError as error:
            raise DependencyUnavailable("The record of searches cannot be read.", advice="Try again.") from error
        return [
            search_pb2.ReturnedCandidate(
                search_id=row.search_id,
                searched_at=rfc3339(_utc(row.opened_at)),
                purpose=row.purpose,
                force=row.force,
                watchlist_id=row.watchlist_id,
                reference_id=row.reference_id,
            )
            for row in rows
        ]


def _utc(moment: datetime) -> datetime:
    """SQLite gives back what was stored without its zone, which is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
