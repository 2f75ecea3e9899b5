"""The table of exports to other bodies. Alembic makes it. Times are milliseconds since 1970 UTC."""

from __future__ import annotations

import sqlalchemy as sa

from services.ingest.adapters.schema import metadata

# What was asked to be given to whom. Kept after an erasure too: it is the record of a disclosure.
exports = sa.Table(
    "exports",
    metadata,
    sa.Column("export_id", sa.String(36), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("watchlist_id", sa.Text, nullable=False),
    # JSON lists.
    sa.Column("subject_ids", sa.Text, nullable=False),
    sa.Column("recipient", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("requested_at_ms", sa.BigInteger, nullable=False),
    sa.Column("approved_by", sa.Text, nullable=False),
    sa.Column("approved_at_ms", sa.BigInteger, nullable=True),
    sa.Column("state", sa.String(16), nullable=False),
    # When it was first given, and of what was given last.
    sa.Column("given_at_ms", sa.BigInteger, nullable=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Index("ix_exports_owner", "owner", "export_id"),
)
