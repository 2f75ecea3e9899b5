"""The table of kept cases, beside those of casework. The migrations make it."""

import sqlalchemy as sa

from services.review.adapters.schema import metadata

kept = sa.Table(
    "review_kept",
    metadata,
    sa.Column("request_id", sa.String(36), sa.ForeignKey("review_cases.request_id"), primary_key=True),
    sa.Column("since_ms", sa.BigInteger, nullable=False),
    sa.Column("snapshot", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("searched_at", sa.DateTime(timezone=True)),
    sa.Column("pending", sa.String(36)),
)
