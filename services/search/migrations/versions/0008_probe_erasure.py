"""Searches whose sealed probe was erased, and which searches have a probe."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("searches", sa.Column("probe_erased_at", sa.DateTime(timezone=True)))
    op.create_index("searches_probe", "searches", ["probe_sha256"])


def downgrade() -> None:
    op.drop_index("searches_probe", "searches")
    op.drop_column("searches", "probe_erased_at")
