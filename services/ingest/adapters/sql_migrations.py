"""Model migrations in the ledger's store, and the last step of one: the candidate's templates become its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.migration_schema import model_migrations, model_templates
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_ledger import insert_ignoring
from services.ingest.adapters.sql_queries import reading
from services.ingest.enrolling.enrolment import EnrolmentState, Verdict
from services.ingest.migrating.migration import Approval, MigrationState, ModelMigration, Step
from services.shared.errors import Conflict

LOST_TO_THE_MODEL = "no_template_of_the_model"


class SqlMigrations:
    """See services.ingest.migrating.migration.MigrationLedger."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter) -> None:
        self._engine = engine
        self._committer = committer

    def current(self) -> ModelMigration | None:
        query = (
            sa.select(model_migrations)
            .where(model_migrations.c.state != MigrationState.ABANDONED.value)
            # The open one first; ids are by time.
            .order_by(model_migrations.c.open_place.is_(None), model_migrations.c.migration_id.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _migration(row)

    def all(self) -> Sequence[ModelMigration]:
        query = sa.select(model_migrations).order_by(model_migrations.c.migration_id.desc())
        with reading(self._engine) as connection:
            return [_migration(row) for row in connection.execute(query)]

    def base_model_id(self) -> str | None:
        """The model that the last finished migration led to; None where there never was one."""
        query = (
            sa.select(model_migrations.c.to_model_id)
            .where(model_migrations.c.state == MigrationState.FINISHED.value)
            .order_by(model_migrations.c.migration_id.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            found: str | None = connection.scalar(query)
        return found

    def open(self, migration: ModelMigration) -> None:
        def work(connection: sa.Connection) -> None:
            statement = insert_ignoring(connection, model_migrations).values(
                **_row(migration), evidence="{}", open_place=1
            )
            if not connection.execute(statement).rowcount:
                raise Conflict(
                    "A model migration is open already.",
                    advice="Finish or abandon that one first.",
                    code="migration_open",
                )

        self._committer.run(work)

    def move(self, migration: ModelMigration, *, only_from: MigrationState) -> None:
        self._committer.run(lambda connection: _move(connection, migration, only_from))

    def keep_evidence(self, migration_id: str, sha256: str, document: str) -> None:
        """The document that an approval will name."""

        def work(connection: sa.Connection) -> None:
            here = model_migrations.c.migration_id == migration_id
            held = json.loads(connection.scalar(sa.select(model_migrations.c.evidence).where(here)) or "{}")
            values = {"evidence": json.dumps({**held, sha256: document})}
            connection.execute(sa.update(model_migrations).where(here).values(values))

        self._committer.run(work)

    def evidence(self, migration_id: str, sha256: str) -> str | None:
        query = sa.select(model_migrations.c.evidence).where(model_migrations.c.migration_id == migration_id)
        with reading(self._engine) as connection:
            held: dict[str, str] = json.loads(connection.scalar(query) or "{}")
        return held.get(sha256)

    def finish(self, migration: ModelMigration) -> int:
        def work(connection: sa.Connection) -> int:
            _move(connection, migration, MigrationState.SWITCHED)
            return _take_over(connection, migration)

        return self._committer.run(work)


def _move(connection: sa.Connection, migration: ModelMigration, only_from: MigrationState) -> None:
    statement = sa.update(model_migrations).where(
        model_migrations.c.migration_id == migration.migration_id, model_migrations.c.state == only_from.value
    )
    place = {} if migration.state.is_open else {"open_place": None}
    if not connection.execute(statement.values(**_row(migration), **place)).rowcount:
        raise Conflict(
            "The migration was changed by somebody else meanwhile.",
            advice="Look at its state and decide again.",
            code="migration_moved",
        )


def _take_over(connection: sa.Connection, migration: ModelMigration) -> int:
    old, new = migration.from_model_id, migration.to_model_id
    other = model_templates.alias("made_by_new")
    is_old = enrolments.c.model_id == old
    of_new = sa.and_(other.c.enrolment_id == enrolments.c.enrolment_id, other.c.model_id == new)
    twin = enrolments.alias("twin")
    # An image that somebody enrolled anew under the new model has a place there already.
    has_twin = sa.exists().where(
        twin.c.model_id == new,
        *(
            twin.c[name] == enrolments.c[name]
            for name in ("watchlist_id", "owner", "subject_id", "image_sha256")
        ),
        twin.c.image_sha256 != "",
    )  # fmt: skip
    movable = sa.and_(is_old, sa.not_(has_twin))
    _keep_former(connection, movable)
    moved = connection.execute(
        sa.update(enrolments)
        .where(movable, of_new, other.c.template.is_not(None), enrolments.c.template.is_not(None))
        .values(
            model_id=new,
            template=other.c.template,
            dimension=other.c.dimension,
            licence=other.c.licence,
            provenance_id=other.c.provenance_id,
            unified_quality=sa.func.coalesce(other.c.unified_quality, enrolments.c.unified_quality),
        )
    ).rowcount
    connection.execute(
        sa.update(enrolments)
        .where(movable, of_new, other.c.template.is_(None), enrolments.c.state == EnrolmentState.ENROLLED.value)
        .values(
            model_id=new,
            state=EnrolmentState.QUARANTINED.value,
            verdict=Verdict.QUARANTINE.value,
            reason=LOST_TO_THE_MODEL,
            detail=other.c.loss_reason + ": " + other.c.loss_detail,
            template=None,
        )
    )
    # What never had a template, or has none any more, is known under the model's name too: nothing comes in twice.
    connection.execute(sa.update(enrolments).where(movable, enrolments.c.template.is_(None)).values(model_id=new))
    own = sa.exists().where(
        enrolments.c.enrolment_id == model_templates.c.enrolment_id, enrolments.c.model_id == new
    )  # fmt: skip
    connection.execute(sa.delete(model_templates).where(model_templates.c.model_id == new, own))
    return moved


def _keep_former(connection: sa.Connection, movable: sa.ColumnElement[bool]) -> None:
    """The templates of the model that leaves, for searches of then that are run again."""
    names = ("enrolment_id", "model_id", "template", "dimension", "licence", "provenance_id", "unified_quality")
    former = sa.select(
        *(enrolments.c[name] for name in names),
        sa.literal(""),
        sa.literal(""),
        sa.true(),
        sa.func.coalesce(enrolments.c.decided_at_ms, 0),
    ).where(movable, enrolments.c.template.is_not(None))
    columns = [*names, "loss_reason", "loss_detail", "is_put", "made_at_ms"]
    connection.execute(insert_ignoring(connection, model_templates).from_select(columns, former))


def _row(migration: ModelMigration) -> dict[str, Any]:
    return {
        "migration_id": migration.migration_id,
        "from_model_id": migration.from_model_id,
        "to_model_id": migration.to_model_id,
        "state": migration.state.value,
        "reason": migration.reason,
        "approvals": json.dumps([asdict(approval) for approval in migration.approvals]),
        "steps": json.dumps([asdict(step) for step in migration.steps]),
    }


def _migration(row: sa.Row[Any]) -> ModelMigration:
    return ModelMigration(
        migration_id=row.migration_id,
        from_model_id=row.from_model_id,
        to_model_id=row.to_model_id,
        state=MigrationState(row.state),
        reason=row.reason,
        approvals=tuple(Approval(**each) for each in json.loads(row.approvals)),
        steps=tuple(Step(**each) for each in json.loads(row.steps)),
    )
