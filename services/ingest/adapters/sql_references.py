"""The ledger's references for the gallery, column by column, and synthetic ones in bulk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_ledger import enrolment_row, next_versions, remember_provenance
from services.ingest.adapters.sql_queries import reading
from services.ingest.adapters.template_vault import KeptTemplate, TemplateVault
from services.ingest.enrolling.enrolment import EnrolmentKey, EnrolmentState, NewEnrolment, Source, Verdict
from services.ingest.ports import SyntheticBatch
from services.rpc.v1 import ingest_pb2
from services.shared.errors import ModelMismatch

# 4,096 references of 128 dimensions are a message of under 3 MB.
_BATCH_ROWS = 4096

# A reference stands in the gallery from the moment its template is durable, which is just before it is put there:
# so a gallery that is rebuilt at that moment does not miss it.
_PAGE = sa.text(
    """SELECT version, reference_id, subject_id, owner, image_sha256, expires_at, template, dimension FROM enrolments
       WHERE watchlist_id = :watchlist_id AND version > :after AND model_id = :model_id
         AND state IN ('accepted', 'enrolled') AND verdict = 'enrol'
       ORDER BY version LIMIT :limit"""
)

_STATES = sa.select(
    enrolments.c.reference_id,
    enrolments.c.state,
    enrolments.c.version,
    enrolments.c.decided_at_ms,
    enrolments.c.settled_at_ms,
    enrolments.c.withdrawn_at_ms,
    enrolments.c.withdrawal_reason,
)


class SqlReferenceReader:
    """See services.ingest.ports.ReferenceReader. Pages by version: no transaction stays open for a slow reader."""

    def __init__(self, engine: sa.Engine, vault: TemplateVault | None = None) -> None:
        self._engine = engine
        self._vault = vault or TemplateVault()

    def read(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        self._check_model(model_id)
        with reading(self._engine) as connection:
            watchlist_ids = connection.scalars(sa.select(enrolments.c.watchlist_id).distinct()).all()
        for watchlist_id in sorted(watchlist_ids):
            after = 0
            while (page := self._page(watchlist_id, after, model_id)) is not None:
                after, batch = page
                if batch is not None:
                    yield batch

    def describe(self, reference_ids: Sequence[str]) -> Sequence[ingest_pb2.ReferenceState]:
        with reading(self._engine) as connection:
            rows = connection.execute(_STATES.where(enrolments.c.reference_id.in_(reference_ids))).mappings()
            return [
                ingest_pb2.ReferenceState(**{name: value for name, value in row.items() if value is not None})
                for row in rows
            ]

    def _page(
        self, watchlist_id: str, after: int, model_id: str
    ) -> tuple[int, ingest_pb2.ReferenceBatch | None] | None:
        """The page's last version and its batch; no batch where every template of it was erased."""
        values = {"watchlist_id": watchlist_id, "after": after, "model_id": model_id, "limit": _BATCH_ROWS}
        with reading(self._engine) as connection:
            # The driver's own rows: wrapping each of a hundred thousand would cost as much as reading them.
            rows = connection.execute(_PAGE, values).cursor.fetchall()
        if not rows:
            return None
        last = int(rows[-1][0])
        kept = [KeptTemplate(row[4], row[7], bytes(row[6])) for row in rows]
        if any(each.is_sealed for each in kept):
            # A template whose key was destroyed is erased, whatever a restored ledger says.
            rows = [
                (*row[:6], template) for row, template in zip(rows, self._vault.open(kept), strict=True) if template
            ]
        if not rows:
            return last, None
        versions, reference_ids, subject_ids, owners, image_sha256s, expires_at, templates = zip(
            *(row[:7] for row in rows), strict=True
        )
        batch = ingest_pb2.ReferenceBatch(
            watchlist_id=watchlist_id,
            reference_ids=reference_ids,
            subject_ids=subject_ids,
            owners=owners,
            image_sha256s=image_sha256s,
            vectors=b"".join(templates),
            dimension=len(templates[0]) // 4,
            model_id=model_id,
            versions=versions,
            expires_at=expires_at,
        )
        return last, batch

    def _check_model(self, model_id: str) -> None:
        query = (
            sa.select(enrolments.c.model_id)
            .where(enrolments.c.verdict == Verdict.ENROL.value, sa.text("state IN ('accepted', 'enrolled')"))
            .limit(1)
        )
        with reading(self._engine) as connection:
            if connection.scalar(query.where(enrolments.c.model_id == model_id)) is not None:
                return
            other = connection.scalar(query)
        if other is not None:
            raise ModelMismatch(
                f"The ledger holds templates of model {other}, none of {model_id}.",
                advice="Run the model that the ledger was filled with, or embed the stored images again.",
                context={"ledger_model": other, "asked_for": model_id},
            )


class SqlSyntheticLedger:
    """See services.ingest.ports.SyntheticLedger."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter, instance: str) -> None:
        self._engine = engine
        self._committer = committer
        self._instance = instance

    def enrolled_count(self, watchlist_id: str) -> int:
        query = (
            sa.select(sa.func.count())
            .select_from(enrolments)
            .where(enrolments.c.watchlist_id == watchlist_id, enrolments.c.state == EnrolmentState.ENROLLED.value)
        )
        with reading(self._engine) as connection:
            return int(connection.scalar(query) or 0)

    def next_number(self, watchlist_id: str, owner: str) -> int:
        query = sa.select(sa.func.max(enrolments.c.subject_id)).where(
            enrolments.c.watchlist_id == watchlist_id,
            enrolments.c.owner == owner,
            enrolments.c.subject_id.like("SYNTHETIC-%"),
            enrolments.c.source == Source.SYNTHETIC.value,
        )
        with reading(self._engine) as connection:
            highest = connection.scalar(query)
        return 1 if highest is None else int(highest.removeprefix("SYNTHETIC-")) + 1

    def insert(self, batch: SyntheticBatch) -> Sequence[int]:
        return self._committer.run(lambda connection: self._insert(connection, batch))

    def _insert(self, connection: sa.Connection, batch: SyntheticBatch) -> Sequence[int]:
        versions = next_versions(connection, len(batch.enrolment_ids))
        provenance_id = remember_provenance(connection, batch.model)
        new = NewEnrolment(
            enrolment_id="",
            reference_id="",
            key=EnrolmentKey(batch.watchlist_id, batch.owner, "", "", batch.model.model_id),
            lawful_basis="synthetic",
            captured_on="",
            agreement_reference="",
            source=Source.SYNTHETIC,
            person_id=batch.person_id,
            force=batch.owner,
            accepted_at_ms=batch.made_at_ms,
        )
        shared = enrolment_row(new, versions[0]) | {
            "verdict": Verdict.ENROL.value,
            "licence": batch.model.licence,
            "dimension": batch.model.dimension,
            "provenance_id": provenance_id,
            "decided_at_ms": batch.made_at_ms,
            "leased_by": self._instance,
            "leased_until_ms": batch.leased_until_ms,
            "attempts": 1,
        }
        names = ("enrolment_id", "reference_id", "version", "subject_id", "template")
        own = zip(batch.enrolment_ids, batch.reference_ids, versions, batch.subject_ids, batch.templates, strict=True)
        rows = [{**shared, **dict(zip(names, row, strict=True))} for row in own]
        statement = sa.insert(enrolments).compile(dialect=connection.dialect, column_keys=list(rows[0]))
        # To the driver as it is: SQLAlchemy's own handling of a hundred thousand rows takes longer than the inserts.
        order = statement.positiontup
        values = rows if order is None else list(map(itemgetter(*order), rows))
        connection.exec_driver_sql(str(statement), values)
        return versions

    def mark_enrolled(self, watchlist_id: str, versions: Sequence[int], settled_at_ms: int) -> None:
        query = (
            sa.update(enrolments)
            .where(
                enrolments.c.watchlist_id == watchlist_id,
                enrolments.c.version.between(versions[0], versions[-1]),
                enrolments.c.state == EnrolmentState.ACCEPTED.value,
            )
            .values(state=EnrolmentState.ENROLLED.value, settled_at_ms=settled_at_ms, leased_by="", leased_until_ms=0)
        )
        self._committer.run(lambda connection: connection.execute(query).rowcount)
