"""Sessions of the console, so that a restart or another replica logs nobody out."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review_sessions",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("person_id", sa.String(128), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_index("review_sessions_person", "review_sessions", ["person_id"])
    op.create_index("review_sessions_seen", "review_sessions", ["seen_at"])


def downgrade() -> None:
    op.drop_table("review_sessions")
