"""The requests that came, in a relational store: searches as they were opened, and what was denied."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.search.adapters.schema import denied_requests, searches
from services.search.identification.requests import ImageNature, ProbeSource, SearchMode, SearchRequest
from services.search.policy import Decision
from services.search.policy.dry_run import RecordedRequest
from services.shared.clock import Clock
from services.shared.database import transaction
from services.shared.tokens import Principal
from services.shared.watchlists import CaseType

# A changed policy is tried on the last month; the audit log has every denial for as long as it is kept.
KEPT = timedelta(days=62)

_SHARED = (
    "opened_at",
    "person_id",
    "force",
    "roles",
    "permitted_watchlists",
    "trained_until",
    "purpose",
    "case_type",
    "nature",
    "mode",
    "watchlists",
)


class SqlRequestRecords:
    """RequestRecords on one engine."""

    def __init__(self, engine: sa.Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def denied(self, request_id: str, principal: Principal, request: SearchRequest, decision: Decision) -> None:
        row = {
            "request_id": request_id,
            "opened_at": self._clock.now().astimezone(UTC),
            "person_id": principal.person_id,
            "force": principal.force,
            "roles": sorted(principal.roles),
            "permitted_watchlists": sorted(principal.watchlists),
            "trained_until": principal.trained_until,
            "purpose": request.purpose,
            "case_type": request.case_type.value,
            "nature": request.nature.value,
            "mode": request.mode.value,
            "watchlists": list(request.watchlists),
            "policy": decision.policy,
            "reasons": [denial.code for denial in decision.denials],
        }
        with self._transaction() as connection:
            connection.execute(sa.insert(denied_requests), row)
            connection.execute(sa.delete(denied_requests).where(denied_requests.c.opened_at < self._oldest()))

    def _oldest(self) -> datetime:
        return self._clock.now().astimezone(UTC) - KEPT

    def since(self, moment: datetime, force: str, limit: int) -> Sequence[RecordedRequest]:
        with self._transaction() as connection:
            opened = connection.execute(_newest(searches, "search_id", moment, force, limit)).all()
            refused = connection.execute(_newest(denied_requests, "request_id", moment, force, limit)).all()
        found = [_recorded(row, True) for row in opened] + [_recorded(row, False) for row in refused]
        return sorted(found, key=lambda one: one.opened_at)[-limit:]

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The record of requests cannot be used.", "search")


def _newest(table: sa.Table, key: str, moment: datetime, force: str, limit: int) -> sa.Select[Any]:
    columns = [table.c[key].label("request_id"), *(table.c[name] for name in _SHARED)]
    since = sa.and_(table.c.force == force, table.c.opened_at >= moment.astimezone(UTC))
    # Searches from before the policy was recorded have no token to decide about.
    return (
        sa.select(*columns)
        .where(since, table.c.permitted_watchlists.is_not(None))
        .order_by(table.c.opened_at.desc())
        .limit(limit)
    )


def _recorded(row: sa.Row[Any], was_permitted: bool) -> RecordedRequest:
    opened_at = row.opened_at.replace(tzinfo=UTC) if row.opened_at.tzinfo is None else row.opened_at
    principal = Principal(
        row.person_id, row.force, frozenset(row.roles), frozenset(row.permitted_watchlists), row.trained_until
    )
    request = SearchRequest(
        case_reference="",
        purpose=row.purpose,
        offence="",
        source=ProbeSource.OTHER,
        watchlists=tuple(row.watchlists),
        mode=SearchMode(row.mode),
        case_type=CaseType(row.case_type or CaseType.UNSTATED),
        nature=ImageNature(row.nature or ImageNature.UNSTATED),
    )
    return RecordedRequest(row.request_id, opened_at, principal, request, was_permitted)
