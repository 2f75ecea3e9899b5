"""Flags for a custodian, and how far the ledger was checked for them.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "flags",
        sa.Column("flag_id", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("watchlist_id", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("other_subject_id", sa.Text, nullable=False),
        sa.Column("key", sa.String(64), nullable=False, unique=True),
        sa.Column("band", sa.String(16), nullable=False),
        sa.Column("points_version", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("raised_at_ms", sa.BigInteger, nullable=False),
        sa.Column("decided_at_ms", sa.BigInteger, nullable=True),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("ix_flags_owner", "flags", ["owner", "state", "flag_id"])
    op.create_table(
        "flag_references",
        sa.Column("flag_id", sa.String(36), sa.ForeignKey("flags.flag_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("reference_id", sa.String(36), primary_key=True),
        sa.Column("enrolment_id", sa.String(36), nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
    )
    op.create_index("ix_flag_references_enrolment", "flag_references", ["enrolment_id"])
    op.create_table(
        "flag_checks",
        sa.Column("watchlist_id", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for name in ("flag_checks", "flag_references", "flags"):
        op.drop_table(name)
