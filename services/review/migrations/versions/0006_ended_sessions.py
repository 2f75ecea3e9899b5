"""Why a session of the console ended, so that its person is told at the sign-in."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review_ended_sessions",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("why", sa.String(16), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("review_ended_sessions_seen", "review_ended_sessions", ["seen_at"])


def downgrade() -> None:
    op.drop_table("review_ended_sessions")
