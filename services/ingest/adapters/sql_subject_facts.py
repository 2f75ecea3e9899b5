"""Everything of one subject in the ledger's store, in the words in which the subject is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.ingest.access.facts import Facts, HeldEnrolment, SubjectFacts
from services.ingest.adapters.export_schema import exports
from services.ingest.adapters.flag_schema import flags
from services.ingest.adapters.life_schema import (
    custody_facts,
    enrolment_facts,
    erasures,
    feed_receipts,
    review_decisions,
)
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_queries import reading
from services.ingest.enrolling.enrolment import EnrolmentState
from services.ingest.life.erasure import ERASED
from services.shared.clock import rfc3339

_ENROLMENT = [
    enrolments.c[name]
    for name in (  # noqa: SIM905 - a list of twenty names is easier read so
        "enrolment_id reference_id watchlist_id lawful_basis captured_on agreement_reference image_sha256 source state "
        "reason detail unified_quality quality_components inter_eye_px model_id accepted_at_ms settled_at_ms "
        "withdrawn_at_ms withdrawal_reason expires_at"
    ).split()
]
_IMAGE = [
    enrolment_facts.c[name] for name in ("custody_reference", "birth_band", "is_notice_given", "capture_device", "pose")
]
_CUSTODY = [
    custody_facts.c[name] for name in ("custody_reference", "disposal", "disposal_on", "birth_band", "is_notice_given")
]
_RECEIVED = [
    feed_receipts.c[name] for name in ("event_id", "kind", "occurred_at_ms", "received_at_ms", "outcome", "reason")
]
_REVIEW = [review_decisions.c[name] for name in ("enrolment_id", "decision", "reason", "decided_at_ms", "next_due_on")]
_ERASURE = [
    erasures.c[name]
    for name in ("erasure_id", "is_whole_subject", "reason", "authority", "requested_at_ms", "state", "finished_at_ms")
]
_FLAG = [flags.c[name] for name in ("flag_id", "kind", "watchlist_id", "state", "raised_at_ms", "decided_at_ms")]
_EXPORT = [exports.c[name] for name in ("export_id", "watchlist_id", "recipient", "purpose", "given_at_ms")]


class SqlSubjectFacts:
    """See services.ingest.access.facts.SubjectLedger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def facts_of(self, owner: str, subject_id: str) -> SubjectFacts:
        with reading(self._engine) as connection:
            held = _enrolments(connection, owner, subject_id)
            of_subject = _Of(connection, owner, subject_id)
            return SubjectFacts(
                enrolments=held,
                custody=of_subject.rows(custody_facts, _CUSTODY),
                received=of_subject.rows(feed_receipts, _RECEIVED),
                reviews=_reviews(connection, [each.enrolment_id for each in held]),
                erasures=of_subject.rows(erasures, _ERASURE),
                flags=_flags(connection, owner, subject_id),
                exports=_exports(connection, owner, subject_id),
            )


class _Of:
    """Rows of one subject."""

    def __init__(self, connection: sa.Connection, owner: str, subject_id: str) -> None:
        self._connection = connection
        self._key = (owner, subject_id)

    def rows(self, table: sa.Table, columns: Sequence[sa.Column[Any]]) -> list[Facts]:
        owner, subject_id = self._key
        query = sa.select(*columns).where(table.c.owner == owner, table.c.subject_id == subject_id)
        return [_told(row) for row in self._connection.execute(query.order_by(columns[0]))]


def _enrolments(connection: sa.Connection, owner: str, subject_id: str) -> list[HeldEnrolment]:
    query = (
        sa.select(*_ENROLMENT, *_IMAGE)
        .join(enrolment_facts, enrolment_facts.c.enrolment_id == enrolments.c.enrolment_id, isouter=True)
        .where(enrolments.c.owner == owner, enrolments.c.subject_id == subject_id)
        .where(enrolments.c.state.in_([state.value for state in EnrolmentState]))
        .order_by(enrolments.c.enrolment_id)
    )
    return [
        HeldEnrolment(
            enrolment_id=row.enrolment_id,
            reference_id=row.reference_id,
            watchlist_id=row.watchlist_id,
            image_sha256=row.image_sha256,
            is_erased=row.withdrawal_reason == ERASED,
            facts=_told(row),
        )
        for row in connection.execute(query)
    ]


def _reviews(connection: sa.Connection, enrolment_ids: Sequence[str]) -> list[Facts]:
    query = sa.select(*_REVIEW).where(review_decisions.c.enrolment_id.in_(enrolment_ids))
    return [_told(row) for row in connection.execute(query.order_by(review_decisions.c.decided_at_ms))]


def _flags(connection: sa.Connection, owner: str, subject_id: str) -> list[Facts]:
    is_named = sa.or_(flags.c.subject_id == subject_id, flags.c.other_subject_id == subject_id)
    query = sa.select(*_FLAG).where(flags.c.owner == owner, is_named)
    return [_told(row) for row in connection.execute(query.order_by(flags.c.flag_id))]


def _exports(connection: sa.Connection, owner: str, subject_id: str) -> list[Facts]:
    query = sa.select(exports.c.subject_ids, *_EXPORT).where(
        exports.c.owner == owner, exports.c.given_at_ms.is_not(None)
    )
    rows = connection.execute(query.order_by(exports.c.export_id)).all()
    given = [row for row in rows if subject_id in json.loads(row.subject_ids)]
    return [{name: value for name, value in _told(row).items() if name != "subject_ids"} for row in given]


def _told(row: sa.Row[Any]) -> Facts:
    """Times as RFC 3339; what is not known is left out."""
    told: dict[str, Any] = {}
    for name, value in ((str(column), value) for column, value in row._mapping.items()):
        if value is None or value == "":
            continue
        if name.endswith("_ms"):
            told[name.removesuffix("_ms")] = rfc3339(datetime.fromtimestamp(value / 1000, UTC))
        elif name == "quality_components":
            told[name] = json.loads(value)
        elif name != "expires_at" or value:
            told[name] = value
    return told
