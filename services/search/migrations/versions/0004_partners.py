"""Consortium searches, and what goes to and comes from partners."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "consortium_searches",
        sa.Column("consortium_id", sa.String(36), primary_key=True),
        *_person(),
        sa.Column("watchlists", sa.JSON, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("idempotency_key", sa.String(200)),
        sa.Column("document", sa.LargeBinary),
        sa.UniqueConstraint("force", "person_id", "idempotency_key", name="uq_consortium_searches_key"),
    )
    op.create_table(
        "partner_exchanges",
        sa.Column("activity_id", sa.String(36), primary_key=True),
        sa.Column("outcome_entry_id", sa.String(36), nullable=False, unique=True),
        sa.Column("direction", sa.String(16), nullable=False),
        sa.Column("partner", sa.String(63), nullable=False),
        *_person(),
        sa.Column("objects", sa.JSON, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "partner_used_tokens",
        sa.Column("token_id", sa.String(36), primary_key=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )


def _person() -> tuple[sa.Column[str], ...]:
    return (
        sa.Column("person_id", sa.String(128), nullable=False),
        sa.Column("force", sa.String(128), nullable=False),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("case_reference", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in ("partner_used_tokens", "partner_exchanges", "consortium_searches"):
        op.drop_table(table)
