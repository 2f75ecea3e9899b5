"""Registered agreements; what a decision was made about, so that another policy can be tried on it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agreement_records",
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("reference", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("key_id", sa.String(63)),
        sa.Column("signature", sa.String(88)),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_by", sa.String(128), nullable=False),
        sa.Column("recorded_by_force", sa.String(128), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.UniqueConstraint("reference", "version", name="agreement_records_version"),
    )
    op.add_column("searches", sa.Column("case_type", sa.String(16)))
    op.add_column("searches", sa.Column("permitted_watchlists", sa.JSON))
    op.add_column("searches", sa.Column("trained_until", sa.Date))
    op.add_column("searches", sa.Column("policy", sa.String(64)))
    op.create_index("searches_opened", "searches", ["opened_at"])
    op.create_table(
        "denied_requests",
        sa.Column("request_id", sa.String(36), primary_key=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("person_id", sa.String(128), nullable=False),
        sa.Column("force", sa.String(128), nullable=False),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("permitted_watchlists", sa.JSON, nullable=False),
        sa.Column("trained_until", sa.Date),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("case_type", sa.String(16), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("watchlists", sa.JSON, nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
    )
    op.create_index("denied_requests_opened", "denied_requests", ["opened_at"])


def downgrade() -> None:
    op.drop_table("denied_requests")
    op.drop_index("searches_opened", "searches")
    for column in ("policy", "trained_until", "permitted_watchlists", "case_type"):
        op.drop_column("searches", column)
    op.drop_table("agreement_records")
