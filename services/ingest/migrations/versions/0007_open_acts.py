"""Acts whose outcome is not in the audit log yet.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ingest_open_acts",
        sa.Column("activity_id", sa.String(36), primary_key=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("act", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("ingest_open_acts")
