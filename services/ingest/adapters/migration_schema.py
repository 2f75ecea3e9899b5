"""The tables of model migrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from services.ingest.adapters.schema import metadata
from services.ingest.enrolling.enrolment import NewEnrolment
from services.ingest.migrating.migration import MigrationState

model_migrations = sa.Table(
    "model_migrations",
    metadata,
    sa.Column("migration_id", sa.String(36), primary_key=True),
    sa.Column("from_model_id", sa.Text, nullable=False),
    sa.Column("to_model_id", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    # JSON lists.
    sa.Column("approvals", sa.Text, nullable=False),
    sa.Column("steps", sa.Text, nullable=False),
    # The documents of `likeness evaluate` that approvals name, as JSON by SHA-256.
    sa.Column("evidence", sa.Text, nullable=False),
    # At most one row has 1 here: the open one.
    sa.Column("open_place", sa.Integer, nullable=True, unique=True),
)

# What models other than an enrolment's own made of its image: a template, or the reason for none.
model_templates = sa.Table(
    "model_templates",
    metadata,
    sa.Column("enrolment_id", sa.String(36), primary_key=True),
    sa.Column("model_id", sa.Text, primary_key=True),
    # Under the image's key, as the enrolment's own.
    sa.Column("template", sa.LargeBinary, nullable=True),
    sa.Column("dimension", sa.Integer, nullable=False),
    sa.Column("licence", sa.Text, nullable=False),
    sa.Column("provenance_id", sa.String(64), sa.ForeignKey("model_provenance.provenance_id"), nullable=True),
    sa.Column("unified_quality", sa.Float, nullable=True),
    sa.Column("loss_reason", sa.Text, nullable=False),
    sa.Column("loss_detail", sa.Text, nullable=False),
    # Whether the model's gallery has acknowledged it; losses have nothing to acknowledge.
    sa.Column("is_put", sa.Boolean, nullable=False),
    sa.Column("made_at_ms", sa.BigInteger, nullable=False),
    sa.Index("ix_model_templates_to_put", "model_id", "is_put"),
)


def forget_other_templates(connection: sa.Connection, enrolment_ids: Sequence[str]) -> None:
    """In the transaction that takes the own template away: what other models made of the image goes with it."""
    if enrolment_ids:
        connection.execute(sa.delete(model_templates).where(model_templates.c.enrolment_id.in_(enrolment_ids)))


def under_the_base_model(connection: sa.Connection, new: Sequence[NewEnrolment]) -> Sequence[NewEnrolment]:
    """Enrolments that were keyed by a model that a migration has just left, keyed by the one that it led to: else the
    same image would come in twice."""
    left = {
        row.from_model_id: row.to_model_id
        for row in connection.execute(
            sa.select(model_migrations.c.from_model_id, model_migrations.c.to_model_id)
            .where(model_migrations.c.state == MigrationState.FINISHED.value)
            .order_by(model_migrations.c.migration_id.desc())
            .limit(1)
        )
    }
    if not left:
        return new
    return [
        replace(item, key=replace(item.key, model_id=left.get(item.key.model_id, item.key.model_id))) for item in new
    ]
