"""Images that are about to be removed from their store; references by image.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "image_holds",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(36), nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("held_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_enrolments_image", "enrolments", ["image_sha256"])


def downgrade() -> None:
    op.drop_index("ix_enrolments_image", "enrolments")
    op.drop_table("image_holds")
