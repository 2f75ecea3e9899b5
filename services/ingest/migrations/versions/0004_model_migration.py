"""Two models side by side: migrations, and templates beside an enrolment's own.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_migrations",
        sa.Column("migration_id", sa.String(36), primary_key=True),
        sa.Column("from_model_id", sa.Text, nullable=False),
        sa.Column("to_model_id", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("approvals", sa.Text, nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("open_place", sa.Integer, nullable=True, unique=True),
    )
    op.create_table(
        "model_templates",
        sa.Column("enrolment_id", sa.String(36), primary_key=True),
        sa.Column("model_id", sa.Text, primary_key=True),
        sa.Column("template", sa.LargeBinary, nullable=True),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("licence", sa.Text, nullable=False),
        sa.Column("provenance_id", sa.String(64), sa.ForeignKey("model_provenance.provenance_id"), nullable=True),
        sa.Column("unified_quality", sa.Float, nullable=True),
        sa.Column("loss_reason", sa.Text, nullable=False),
        sa.Column("loss_detail", sa.Text, nullable=False),
        sa.Column("is_put", sa.Boolean, nullable=False),
        sa.Column("made_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_model_templates_to_put", "model_templates", ["model_id", "is_put"])


def downgrade() -> None:
    op.drop_table("model_templates")
    op.drop_table("model_migrations")
