"""Which case holds which picture, so that erasing one case's takes nothing from another."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review_pictures",
        sa.Column("request_id", sa.String(36), sa.ForeignKey("review_cases.request_id"), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
    )
    op.create_index("review_pictures_sha256", "review_pictures", ["sha256"])


def downgrade() -> None:
    op.drop_table("review_pictures")
