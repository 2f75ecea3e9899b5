"""How far each case of the unsolved file has been searched again."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review_kept",
        sa.Column("request_id", sa.String(36), sa.ForeignKey("review_cases.request_id"), primary_key=True),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("snapshot", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("searched_at", sa.DateTime(timezone=True)),
        sa.Column("pending", sa.String(36)),
    )


def downgrade() -> None:
    op.drop_table("review_kept")
