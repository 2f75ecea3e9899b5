"""Templates of models other than an enrolment's own, sealed as the own ones are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.migration_schema import model_migrations, model_templates
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_ledger import insert_ignoring, remember_provenance
from services.ingest.adapters.sql_queries import key_of, reading
from services.ingest.adapters.template_vault import KeptTemplate, TemplateVault
from services.ingest.enrolling.enrolment import EnrolmentState, PendingEnrolment, Source, Verdict
from services.ingest.migrating.batches import batch_of
from services.ingest.migrating.embeds import BaseModelSource
from services.ingest.migrating.migration import Loss, MigrationState, OtherTemplate, PlacedTemplate, Progress
from services.ingest.ports import ReferenceReader
from services.rpc.v1 import ingest_pb2
from services.shared.errors import ModelMismatch

_BATCH_ROWS = 4096
_IN_ONE_QUERY = 1000
_ENROLLED = EnrolmentState.ENROLLED.value
# As in the own templates' reading: from the moment that a template is durable.
_STANDING = (EnrolmentState.ACCEPTED.value, _ENROLLED)
_OTHER = model_templates
_IS_ENROL = enrolments.c.verdict == Verdict.ENROL.value

_PLACED = (
    enrolments.c.enrolment_id,
    enrolments.c.reference_id,
    enrolments.c.version,
    enrolments.c.watchlist_id,
    enrolments.c.owner,
    enrolments.c.subject_id,
    enrolments.c.image_sha256,
    enrolments.c.expires_at,
    _OTHER.c.template,
    _OTHER.c.dimension,
)


class SqlModelTemplates:
    """See services.ingest.migrating.migration.OtherTemplates."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter, vault: TemplateVault | None = None) -> None:
        self._engine = engine
        self._committer = committer
        self._vault = vault or TemplateVault()

    def without(self, model_id: str, after: str, limit: int) -> Sequence[PendingEnrolment]:
        query = (
            _lacking(model_id)
            .where(enrolments.c.state == _ENROLLED, enrolments.c.enrolment_id > after)
            .order_by(enrolments.c.enrolment_id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [_pending(row) for row in connection.execute(query)]

    def missing_of(self, enrolment_ids: Sequence[str], model_id: str) -> Sequence[PendingEnrolment]:
        found: list[PendingEnrolment] = []
        with reading(self._engine) as connection:
            for start in range(0, len(enrolment_ids), _IN_ONE_QUERY):
                some = enrolment_ids[start : start + _IN_ONE_QUERY]
                query = _lacking(model_id).where(enrolments.c.state.in_(_STANDING), enrolments.c.enrolment_id.in_(some))
                found += [_pending(row) for row in connection.execute(query)]
        return found

    def keep(self, templates: Sequence[OtherTemplate], now_ms: int) -> None:
        if not templates:
            return
        sealed = self._vault.seal([KeptTemplate(t.image_sha256, len(t.template) // 4, t.template) for t in templates])

        def work(connection: sa.Connection) -> None:
            if not _is_wanted(connection, templates[0].model.model_id):
                return  # the migration was abandoned meanwhile
            query = sa.select(enrolments.c.enrolment_id).where(
                enrolments.c.enrolment_id.in_([each.enrolment_id for each in templates]),
                enrolments.c.state.in_(_STANDING),
            )
            standing = set(connection.scalars(query.with_for_update()))
            rows = [
                _row(connection, each, content, now_ms)
                for each, content in zip(templates, sealed, strict=True)
                if each.enrolment_id in standing
            ]
            if rows:
                connection.execute(insert_ignoring(connection, _OTHER), rows)

        self._committer.run(work)

    def retry_losses(self, model_id: str) -> int:
        statement = sa.delete(_OTHER).where(_OTHER.c.model_id == model_id, _OTHER.c.loss_reason != "")
        return self._committer.run(lambda connection: connection.execute(statement).rowcount)

    def forget(self, model_id: str) -> int:
        """Everything that this model made, of an abandoned migration."""
        statement = sa.delete(_OTHER).where(_OTHER.c.model_id == model_id)
        return self._committer.run(lambda connection: connection.execute(statement).rowcount)

    def to_put(self, model_id: str, enrolment_ids: Sequence[str] | None, limit: int) -> Sequence[PlacedTemplate]:
        query = _standing_of(model_id)
        if enrolment_ids is None:
            query = query.where(_OTHER.c.is_put.is_(False))
        else:
            query = query.where(_OTHER.c.enrolment_id.in_(enrolment_ids))
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(enrolments.c.watchlist_id).limit(limit)).all()
        return list(self._opened(rows))

    def note_put(self, enrolment_ids: Sequence[str], model_id: str) -> None:
        if not enrolment_ids:
            return
        statement = (
            sa.update(_OTHER)
            .where(_OTHER.c.model_id == model_id, _OTHER.c.enrolment_id.in_(enrolment_ids))
            .values(is_put=True)
        )

        def work(connection: sa.Connection) -> None:
            connection.execute(statement)

        self._committer.run(work)

    def progress(self, model_id: str) -> Progress:
        of_model = sa.and_(_OTHER.c.enrolment_id == enrolments.c.enrolment_id, _OTHER.c.model_id == model_id)
        is_own = enrolments.c.model_id == model_id
        query = (
            sa.select(
                is_own.label("is_own"),
                _OTHER.c.loss_reason,
                _OTHER.c.is_put,
                sa.func.count().label("references"),
            )
            .select_from(enrolments.outerjoin(_OTHER, of_model))
            .where(enrolments.c.state == _ENROLLED, _IS_ENROL)
            .group_by(is_own, _OTHER.c.loss_reason, _OTHER.c.is_put)
        )
        enrolled = embedded = waiting = 0
        lost: dict[str, int] = {}
        with reading(self._engine) as connection:
            for row in connection.execute(query):
                enrolled += row.references
                if row.is_own:
                    embedded += row.references
                elif row.loss_reason:
                    lost[row.loss_reason] = lost.get(row.loss_reason, 0) + row.references
                elif row.loss_reason is not None:
                    embedded += row.references
                    waiting += 0 if row.is_put else row.references
        return Progress(enrolled, embedded, lost, waiting)

    def losses(self, model_id: str, after: str, limit: int) -> Sequence[Loss]:
        query = (
            sa.select(
                enrolments.c.enrolment_id,
                enrolments.c.reference_id,
                enrolments.c.owner,
                enrolments.c.watchlist_id,
                _OTHER.c.loss_reason,
                _OTHER.c.loss_detail,
            )
            .where(*_lost(model_id), _OTHER.c.enrolment_id > after)
            .order_by(_OTHER.c.enrolment_id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [Loss(*row) for row in connection.execute(query)]

    def lost_by_watchlist(self, model_id: str) -> Mapping[str, int]:
        query = (
            sa.select(enrolments.c.watchlist_id, sa.func.count())
            .where(*_lost(model_id))
            .group_by(enrolments.c.watchlist_id)
        )
        with reading(self._engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def lost_by_owner(self, model_id: str) -> Mapping[tuple[str, str], int]:
        kinds = (enrolments.c.watchlist_id, enrolments.c.owner)
        query = sa.select(*kinds, sa.func.count()).where(*_lost(model_id)).group_by(*kinds)
        with reading(self._engine) as connection:
            return {(row[0], row[1]): row[2] for row in connection.execute(query)}

    def read(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        """The model's templates beside the own ones, in batches of one watchlist each."""
        with reading(self._engine) as connection:
            watchlist_ids = connection.scalars(sa.select(enrolments.c.watchlist_id).distinct()).all()
        for watchlist_id in sorted(watchlist_ids):
            after = ""
            while True:
                query = (
                    _standing_of(model_id)
                    .where(enrolments.c.watchlist_id == watchlist_id, _OTHER.c.enrolment_id > after)
                    .order_by(_OTHER.c.enrolment_id)
                    .limit(_BATCH_ROWS)
                )
                with reading(self._engine) as connection:
                    rows = connection.execute(query).all()
                if not rows:
                    break
                after = rows[-1].enrolment_id
                placed = [each for each in self._opened(rows) if each.template]
                if placed:
                    yield batch_of(placed, model_id)

    def knows(self, model_id: str) -> bool:
        """Whether the ledger holds templates of this model, or a migration leads to it."""
        held = sa.select(_OTHER.c.enrolment_id).where(_OTHER.c.model_id == model_id).limit(1)
        with reading(self._engine) as connection:
            return connection.scalar(held) is not None or _is_wanted(connection, model_id)

    def _opened(self, rows: Sequence[sa.Row[Any]]) -> Iterator[PlacedTemplate]:
        """A template whose key was destroyed is empty: it is erased."""
        opened = self._vault.open([KeptTemplate(row.image_sha256, row.dimension, bytes(row.template)) for row in rows])
        for row, template in zip(rows, opened, strict=True):
            yield PlacedTemplate(
                enrolment_id=row.enrolment_id,
                reference_id=row.reference_id,
                version=row.version,
                watchlist_id=row.watchlist_id,
                owner=row.owner,
                subject_id=row.subject_id,
                image_sha256=row.image_sha256,
                expires_at=row.expires_at,
                template=template,
            )


class SqlModelReferences:
    """Every reference of one model, whether its template is an enrolment's own or beside it."""

    def __init__(self, own: ReferenceReader, other: SqlModelTemplates) -> None:
        self._own = own
        self._other = other

    def read(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        """Raises ModelMismatch when the ledger holds templates, none of them of this model, and no migration leads to
        it."""
        try:
            yield from self._own.read(model_id)
        except ModelMismatch:
            if not self._other.knows(model_id):
                raise
        yield from self._other.read(model_id)


class SqlBaseReferences:
    """See services.ingest.ports.ReferenceReader: the references of the ledger's own model, and of no former one."""

    def __init__(self, own: ReferenceReader, other: SqlModelTemplates, migrations: BaseModelSource) -> None:
        self._own = own
        self._other = other
        self._migrations = migrations

    def read(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        base = self._migrations.base_model_id()
        if base is not None and base != model_id:
            raise ModelMismatch(
                f"The ledger's model is {base}; {model_id} was left, or is none of its.",
                advice=f"Run an embed with {base}.",
                context={"ledger_model": base, "asked_for": model_id},
            )
        yield from self._own.read(model_id)
        if base is not None:
            # What was begun under the former model and embedded with this one.
            yield from self._other.read(model_id)

    def describe(self, reference_ids: Sequence[str]) -> Sequence[ingest_pb2.ReferenceState]:
        return self._own.describe(reference_ids)


def _is_wanted(connection: sa.Connection, model_id: str) -> bool:
    """Whether a migration leads, or led, to this model."""
    query = sa.select(model_migrations.c.migration_id).where(
        model_migrations.c.to_model_id == model_id, model_migrations.c.state != MigrationState.ABANDONED.value
    )
    return connection.scalar(query.limit(1)) is not None


def _lacking(model_id: str) -> sa.Select[Any]:
    """Standing references of which this model has made nothing, neither a template nor a loss."""
    of_model = sa.and_(_OTHER.c.enrolment_id == enrolments.c.enrolment_id, _OTHER.c.model_id == model_id)
    return (
        sa.select(
            enrolments.c.enrolment_id,
            enrolments.c.reference_id,
            enrolments.c.version,
            enrolments.c.watchlist_id,
            enrolments.c.owner,
            enrolments.c.subject_id,
            enrolments.c.image_sha256,
            enrolments.c.model_id,
            enrolments.c.source,
        )
        .select_from(enrolments.outerjoin(_OTHER, of_model))
        .where(_IS_ENROL, enrolments.c.model_id != model_id, _OTHER.c.enrolment_id.is_(None))
    )


def _standing_of(model_id: str) -> sa.Select[Any]:
    return sa.select(*_PLACED).where(
        _OTHER.c.enrolment_id == enrolments.c.enrolment_id,
        _OTHER.c.model_id == model_id,
        _OTHER.c.template.is_not(None),
        enrolments.c.state.in_(_STANDING),
        _IS_ENROL,
    )


def _lost(model_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _OTHER.c.enrolment_id == enrolments.c.enrolment_id,
        _OTHER.c.model_id == model_id,
        _OTHER.c.loss_reason != "",
        enrolments.c.state == _ENROLLED,
    )


def _pending(row: sa.Row[Any]) -> PendingEnrolment:
    return PendingEnrolment(row.enrolment_id, row.reference_id, key_of(row), row.version, Source(row.source), 0)


def _row(connection: sa.Connection, made: OtherTemplate, sealed: bytes, now_ms: int) -> dict[str, Any]:
    return {
        "enrolment_id": made.enrolment_id,
        "model_id": made.model.model_id,
        "template": sealed or None,
        "dimension": made.model.dimension,
        "licence": made.model.licence,
        "provenance_id": remember_provenance(connection, made.model),
        "unified_quality": made.unified_quality,
        "loss_reason": made.loss_reason,
        "loss_detail": made.loss_detail.replace("\x00", ""),
        "is_put": bool(made.loss_reason),
        "made_at_ms": now_ms,
    }
