"""The tables of flags. Alembic makes them. Times are milliseconds since 1970 UTC."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from services.ingest.adapters.schema import metadata

flags = sa.Table(
    "flags",
    metadata,
    sa.Column("flag_id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("watchlist_id", sa.Text, nullable=False),
    sa.Column("subject_id", sa.Text, nullable=False),
    sa.Column("other_subject_id", sa.Text, nullable=False),
    # What it is about, as a digest: one flag a matter, however often it is found.
    sa.Column("key", sa.String(64), nullable=False, unique=True),
    sa.Column("band", sa.String(16), nullable=False),
    sa.Column("points_version", sa.Text, nullable=False),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("raised_at_ms", sa.BigInteger, nullable=False),
    sa.Column("decided_at_ms", sa.BigInteger, nullable=True),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Index("ix_flags_owner", "owner", "state", "flag_id"),
)

flag_references = sa.Table(
    "flag_references",
    metadata,
    sa.Column("flag_id", sa.String(36), sa.ForeignKey("flags.flag_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("reference_id", sa.String(36), primary_key=True),
    sa.Column("enrolment_id", sa.String(36), nullable=False),
    sa.Column("subject_id", sa.Text, nullable=False),
    sa.Index("ix_flag_references_enrolment", "enrolment_id"),
)

# Up to which version the ledger was checked.
flag_checks = sa.Table(
    "flag_checks",
    metadata,
    sa.Column("watchlist_id", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)


def erase_flags(connection: sa.Connection, enrolment_ids: Sequence[str], subject: tuple[str, str] | None) -> int:
    """Remove every flag that is about one of these, and of a subject that is erased as a whole every flag that names
    it; how many. A flag that rested on several references of the subject is found again where it still holds."""
    about = sa.select(flag_references.c.flag_id).where(flag_references.c.enrolment_id.in_(enrolment_ids))
    condition: sa.ColumnElement[bool] = flags.c.flag_id.in_(about)
    if subject is not None:
        owner, subject_id = subject
        is_named = sa.or_(flags.c.subject_id == subject_id, flags.c.other_subject_id == subject_id)
        condition = sa.or_(condition, sa.and_(flags.c.owner == owner, is_named))
    due = connection.scalars(sa.select(flags.c.flag_id).where(condition)).all()
    connection.execute(sa.delete(flag_references).where(flag_references.c.flag_id.in_(due)))
    connection.execute(sa.delete(flags).where(flags.c.flag_id.in_(due)))
    return len(due)
