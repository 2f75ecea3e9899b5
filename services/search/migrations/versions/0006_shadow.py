"""What the shadow searches of model migrations came to, in counts."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shadow_counts",
        sa.Column("migration_id", sa.String(36), primary_key=True),
        sa.Column("served_model_id", sa.Text, primary_key=True),
        sa.Column("process_id", sa.String(36), primary_key=True),
        sa.Column("counts", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("shadow_counts")
