"""Searches, their candidates, idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "searches",
        sa.Column("search_id", sa.String(36), primary_key=True),
        sa.Column("outcome_entry_id", sa.String(36), nullable=False, unique=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("person_id", sa.String(128), nullable=False),
        sa.Column("force", sa.String(128), nullable=False),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("case_reference", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("offence", sa.Text, nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("watchlists", sa.JSON, nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("max_candidates", sa.Integer, nullable=False),
        sa.Column("face", sa.Integer),
        sa.Column("probe_sha256", sa.String(64), nullable=False),
        sa.Column("probe_size_bytes", sa.Integer, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_id", sa.Text),
        sa.Column("result", sa.LargeBinary),
        sa.Column("problem", sa.JSON),
        sa.Column("timings_ms", sa.JSON),
        sa.Column("is_closed", sa.Boolean, nullable=False),
    )
    unclosed = sa.text("NOT is_closed")
    op.create_index("searches_unclosed", "searches", ["opened_at"], sqlite_where=unclosed, postgresql_where=unclosed)
    op.create_index("searches_case", "searches", ["force", "case_reference"])
    op.create_table(
        "search_candidates",
        sa.Column("search_id", sa.String(36), sa.ForeignKey("searches.search_id", ondelete="CASCADE"), nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("reference_id", sa.String(36), nullable=False),
        sa.Column("watchlist_id", sa.String(64), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("search_id", "rank"),
    )
    op.create_index("search_candidates_reference", "search_candidates", ["reference_id"])
    op.create_table(
        "search_idempotency_keys",
        sa.Column("force", sa.String(128), nullable=False),
        sa.Column("person_id", sa.String(128), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("search_id", sa.String(36), sa.ForeignKey("searches.search_id", ondelete="CASCADE"), nullable=False),
        sa.PrimaryKeyConstraint("force", "person_id", "key"),
    )


def downgrade() -> None:
    op.drop_table("search_idempotency_keys")
    op.drop_table("search_candidates")
    op.drop_table("searches")
