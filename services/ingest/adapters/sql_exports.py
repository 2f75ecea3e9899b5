"""Exports in the ledger's store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from services.ingest.adapters.export_schema import exports
from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.life_schema import enrolment_facts
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_queries import reading
from services.ingest.enrolling.enrolment import EnrolmentState
from services.ingest.exports.model import Export, ExportedReference, ExportState


class SqlExports:
    """See services.ingest.exports.model.ExportStore."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter) -> None:
        self._engine = engine
        self._committer = committer

    def add(self, export: Export) -> None:
        values = asdict(export) | {"state": export.state.value, "subject_ids": json.dumps(export.subject_ids)}
        query = sa.insert(exports).values(values)
        self._committer.run(lambda connection: connection.execute(query).rowcount)

    def find(self, export_id: str) -> Export | None:
        with reading(self._engine) as connection:
            row = connection.execute(sa.select(exports).where(exports.c.export_id == export_id)).one_or_none()
        return None if row is None else _export(row)

    def list(self, owner: str, watchlist_ids: frozenset[str], limit: int) -> Sequence[Export]:
        query = sa.select(exports).where(exports.c.owner == owner, exports.c.watchlist_id.in_(sorted(watchlist_ids)))
        with reading(self._engine) as connection:
            return [_export(row) for row in connection.execute(query.order_by(exports.c.export_id.desc()).limit(limit))]

    def approve(self, export_id: str, person_id: str, now_ms: int) -> bool:
        is_open = sa.and_(exports.c.export_id == export_id, exports.c.state == ExportState.REQUESTED.value)
        values = {"state": ExportState.APPROVED.value, "approved_by": person_id, "approved_at_ms": now_ms}
        query = sa.update(exports).where(is_open).values(values)
        return bool(self._committer.run(lambda connection: connection.execute(query).rowcount))

    def note_given(self, export_id: str, sha256: str, now_ms: int) -> None:
        first = sa.func.coalesce(exports.c.given_at_ms, now_ms)
        query = sa.update(exports).where(exports.c.export_id == export_id).values(given_at_ms=first, sha256=sha256)
        self._committer.run(lambda connection: connection.execute(query).rowcount)

    def references(self, export: Export) -> Sequence[ExportedReference]:
        query = (
            sa.select(
                enrolments.c.reference_id,
                enrolments.c.subject_id,
                enrolments.c.image_sha256,
                enrolments.c.captured_on,
                sa.func.coalesce(enrolment_facts.c.pose, ""),
                sa.func.coalesce(enrolment_facts.c.custody_reference, ""),
            )
            .join(enrolment_facts, enrolment_facts.c.enrolment_id == enrolments.c.enrolment_id, isouter=True)
            .where(
                enrolments.c.watchlist_id == export.watchlist_id,
                enrolments.c.owner == export.owner,
                enrolments.c.subject_id.in_(export.subject_ids),
                enrolments.c.state == EnrolmentState.ENROLLED.value,
                enrolments.c.image_sha256 != "",
            )
            .order_by(enrolments.c.subject_id, enrolments.c.enrolment_id)
        )
        with reading(self._engine) as connection:
            return [ExportedReference(*row) for row in connection.execute(query)]


def _export(row: sa.Row[Any]) -> Export:
    values = {str(name): value for name, value in row._mapping.items()}
    values["subject_ids"] = tuple(json.loads(values["subject_ids"]))
    values["state"] = ExportState(values["state"])
    return Export(**values)
