"""What a picture was declared to be, so that a changed policy is tried on that too."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("searches", sa.Column("nature", sa.String(16)))
    op.add_column("denied_requests", sa.Column("nature", sa.String(16)))


def downgrade() -> None:
    op.drop_column("denied_requests", "nature")
    op.drop_column("searches", "nature")
