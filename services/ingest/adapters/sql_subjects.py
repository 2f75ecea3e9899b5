"""A subject's references in the ledger."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_queries import reading
from services.ingest.enrolling.enrolment import EnrolmentState
from services.rpc.v1 import reference_pb2

_MOST = 200  # of one subject; nobody compares more


class SqlSubjectReferences:
    """See services.ingest.reference_server.SubjectReferences."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def references_of(
        self, watchlist_id: str, owner: str, subject_id: str, reference_id: str | None = None
    ) -> Sequence[reference_pb2.EnrolledReference]:
        query = (
            sa.select(
                enrolments.c.reference_id,
                enrolments.c.subject_id,
                enrolments.c.owner,
                enrolments.c.watchlist_id,
                enrolments.c.image_sha256,
                enrolments.c.captured_on,
                enrolments.c.unified_quality,
            )
            .where(
                enrolments.c.watchlist_id == watchlist_id,
                enrolments.c.owner == owner,
                enrolments.c.subject_id == subject_id,
                enrolments.c.state == EnrolmentState.ENROLLED.value,
                sa.true() if reference_id is None else enrolments.c.reference_id == reference_id,
            )
            .order_by(enrolments.c.captured_on.desc(), enrolments.c.reference_id)
            .limit(_MOST)
        )
        with reading(self._engine) as connection:
            return [reference_pb2.EnrolledReference(**row) for row in connection.execute(query).mappings()]
