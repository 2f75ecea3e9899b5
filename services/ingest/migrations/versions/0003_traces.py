"""The trace that an enrolment was accepted in.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("enrolments", sa.Column("traceparent", sa.String(55), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("enrolments", "traceparent")
