"""Kept cases in a relational store, through SQLAlchemy: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from services.review.adapters.schema import cases
from services.review.model import Case, CaseState
from services.review.unsolved.ports import KeptCase, KeptLook, KeptState
from services.review.unsolved.schema import kept
from services.shared.database import AlreadyStored, one_writer, transaction

_CASE = TypeAdapter(Case)
_REFUSED = (KeptState.DENIED.value, KeptState.FAILED.value, KeptState.NO_MANDATE.value)


class SqlKeptStore:
    """KeptStore on one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writing = one_writer(engine)

    def due(self, looked_before: datetime, denied_before: datetime, limit: int, *, now: datetime) -> Sequence[KeptCase]:
        is_due = sa.or_(
            kept.c.request_id.is_(None),
            kept.c.looked_at > now.astimezone(UTC),
            kept.c.pending.is_not(None),
            sa.and_(kept.c.state.not_in(_REFUSED), kept.c.looked_at <= looked_before.astimezone(UTC)),
            sa.and_(kept.c.state.in_(_REFUSED), kept.c.looked_at <= denied_before.astimezone(UTC)),
        )
        # Never looked at first, then longest ago: nobody waits for ever behind those that are quick to be done.
        order = (kept.c.request_id.is_not(None), kept.c.looked_at, cases.c.request_id)
        return self._listed(sa.and_(cases.c.state == CaseState.UNSOLVED.value, is_due), order, limit)

    def expired(self, last_day: date, limit: int) -> Sequence[Case]:
        # The day stands in the document. A unit keeps hundreds of probes, and this is asked every few minutes.
        query = sa.select(cases.c.document).where(cases.c.state == CaseState.UNSOLVED.value)
        with self._transaction() as connection:
            found = [_CASE.validate_json(document) for document in connection.scalars(query)]
        return [one for one in found if one.unsolved is not None and one.unsolved.expires_on <= last_day][:limit]

    def ended(self, limit: int) -> Sequence[KeptCase]:
        return self._listed(kept.c.state == KeptState.ENDED.value, (kept.c.looked_at, cases.c.request_id), limit)

    def erasing(self, limit: int) -> Sequence[KeptCase]:
        return self._listed(kept.c.state == KeptState.ERASING.value, (cases.c.request_id,), limit)

    def find(self, request_id: str) -> KeptLook | None:
        with self._transaction() as connection:
            row = connection.execute(sa.select(kept).where(kept.c.request_id == request_id)).one_or_none()
        return None if row is None else _look(row)

    def begin(self, request_id: str, before: KeptLook | None, look: KeptLook) -> bool:
        try:
            with self._writing, self._transaction() as connection:
                if before is None:
                    connection.execute(sa.insert(kept), _row(request_id, look))
                    return True
                as_seen = sa.and_(
                    kept.c.request_id == request_id,
                    kept.c.looked_at == before.looked_at.astimezone(UTC),
                    kept.c.pending.is_(None) if before.pending is None else kept.c.pending == before.pending,
                )
                changed = connection.execute(sa.update(kept).where(as_seen).values(**_row(request_id, look)))
                return changed.rowcount == 1
        except AlreadyStored:
            return False

    def put(self, request_id: str, look: KeptLook) -> None:
        with self._writing, self._transaction() as connection:
            known = connection.scalar(sa.select(kept.c.state).where(kept.c.request_id == request_id).with_for_update())
            if known is None:
                connection.execute(sa.insert(kept), _row(request_id, look))
            # A search that ends while the case does must not take back that its erasure was begun.
            elif known != KeptState.ERASING.value or look.state is KeptState.ERASING:
                connection.execute(
                    sa.update(kept).where(kept.c.request_id == request_id).values(**_row(request_id, look))
                )

    def forget(self, request_id: str) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(sa.delete(kept).where(kept.c.request_id == request_id))

    def continuations(self, case: Case) -> Sequence[Case]:
        # The document is read: a case has few continuations, and a force few cases of one requester.
        query = sa.select(cases.c.document).where(
            cases.c.force == case.force, cases.c.requested_by == case.requested_by
        )
        with self._transaction() as connection:
            found = [_CASE.validate_json(document) for document in connection.scalars(query)]
        return [one for one in found if one.continues == case.request_id]

    def _listed(
        self, condition: sa.ColumnElement[bool], order: Sequence[sa.ColumnElement[Any]], limit: int
    ) -> Sequence[KeptCase]:
        joined = cases.outerjoin(kept, kept.c.request_id == cases.c.request_id)
        query = sa.select(cases.c.document, kept).select_from(joined).where(condition).order_by(*order).limit(limit)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return [
            KeptCase(_CASE.validate_json(row.document), None if row.request_id is None else _look(row)) for row in rows
        ]

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The store of casework does not answer.", "review")


def _row(request_id: str, look: KeptLook) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "since_ms": look.since_ms,
        "snapshot": look.snapshot,
        "state": look.state.value,
        "reason": look.reason,
        "looked_at": look.looked_at.astimezone(UTC),
        "searched_at": None if look.searched_at is None else look.searched_at.astimezone(UTC),
        "pending": look.pending,
    }


def _look(row: Any) -> KeptLook:
    return KeptLook(
        since_ms=row.since_ms,
        snapshot=row.snapshot,
        state=KeptState(row.state),
        reason=row.reason,
        looked_at=_utc(row.looked_at),
        searched_at=None if row.searched_at is None else _utc(row.searched_at),
        pending=row.pending,
    )


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
