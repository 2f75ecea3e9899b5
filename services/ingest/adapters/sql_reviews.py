"""Retention reviews in the ledger's store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.life_schema import custody_facts, enrolment_facts, review_decisions
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_queries import reading
from services.ingest.enrolling.enrolment import EnrolmentState, Source
from services.ingest.life.retention import ReviewDecision, ReviewedReference

_PAGE = 5000


class SqlReviews:
    """See services.ingest.life.retention.ReviewLedger."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter) -> None:
        self._engine = engine
        self._committer = committer

    def references(self, owner: str, watchlist_ids: frozenset[str]) -> Iterator[ReviewedReference]:
        after = ""
        chosen = (
            enrolments.c.owner == owner,
            enrolments.c.state == EnrolmentState.ENROLLED.value,
            enrolments.c.watchlist_id.in_(sorted(watchlist_ids)),
            enrolments.c.source != Source.SYNTHETIC.value,
        )
        while True:
            query = _query().where(*chosen, enrolments.c.enrolment_id > after)
            with reading(self._engine) as connection:
                rows = connection.execute(query.order_by(enrolments.c.enrolment_id).limit(_PAGE)).all()
            if not rows:
                return
            after = rows[-1].enrolment_id
            yield from map(_reference, rows)

    def reference(self, enrolment_id: str) -> ReviewedReference | None:
        with reading(self._engine) as connection:
            row = connection.execute(_query().where(enrolments.c.enrolment_id == enrolment_id)).one_or_none()
        return None if row is None else _reference(row)

    def decide(self, decision: ReviewDecision) -> None:
        query = sa.insert(review_decisions).values(asdict(decision))
        self._committer.run(lambda connection: connection.execute(query).rowcount)


def _query() -> sa.Select[Any]:
    other = review_decisions.alias("other")
    newest = (
        sa.select(sa.func.max(other.c.decided_at_ms))
        .where(other.c.enrolment_id == enrolments.c.enrolment_id)
        .correlate(enrolments)
        .scalar_subquery()
    )
    is_decision = sa.and_(
        review_decisions.c.enrolment_id == enrolments.c.enrolment_id, review_decisions.c.decided_at_ms == newest
    )
    is_custody = sa.and_(
        custody_facts.c.owner == enrolments.c.owner,
        custody_facts.c.custody_reference == enrolment_facts.c.custody_reference,
        custody_facts.c.custody_reference != "",
    )
    joined = (
        sa.outerjoin(enrolments, enrolment_facts, enrolment_facts.c.enrolment_id == enrolments.c.enrolment_id)
        .outerjoin(custody_facts, is_custody)
        .outerjoin(review_decisions, is_decision)
    )
    return sa.select(
        enrolments.c.enrolment_id,
        enrolments.c.watchlist_id,
        enrolments.c.owner,
        enrolments.c.subject_id,
        enrolments.c.captured_on,
        enrolment_facts.c.custody_reference,
        custody_facts.c.disposal,
        custody_facts.c.disposal_on,
        sa.func.coalesce(sa.func.nullif(enrolment_facts.c.birth_band, ""), custody_facts.c.birth_band).label("band"),
        review_decisions.c.decided_at_ms,
        review_decisions.c.next_due_on,
    ).select_from(joined)


def _reference(row: sa.Row[Any]) -> ReviewedReference:
    decided_on = ""
    if row.decided_at_ms is not None:
        decided_on = datetime.fromtimestamp(row.decided_at_ms / 1000, UTC).date().isoformat()
    return ReviewedReference(
        enrolment_id=row.enrolment_id,
        watchlist_id=row.watchlist_id,
        owner=row.owner,
        subject_id=row.subject_id,
        captured_on=row.captured_on,
        custody_reference=row.custody_reference or "",
        disposal=row.disposal or "",
        disposal_on=row.disposal_on or "",
        birth_band=row.band or "",
        decided_on=decided_on,
        next_due_on=row.next_due_on or "",
    )
