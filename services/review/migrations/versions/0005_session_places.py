"""Where each session of the console was begun, and which one its sign-in ended, so that its person can see it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, length in (("address", 64), ("agent", 64)):
        op.add_column("review_sessions", sa.Column(name, sa.String(length), nullable=False, server_default=""))
    op.add_column("review_sessions", sa.Column("replaced", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    for name in ("replaced", "agent", "address"):
        op.drop_column("review_sessions", name)
