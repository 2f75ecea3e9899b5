"""The tables of consortium searches. The migrations make them."""

import sqlalchemy as sa

from services.search.adapters.schema import metadata

consortiums = sa.Table(
    "consortium_searches",
    metadata,
    sa.Column("consortium_id", sa.String(36), primary_key=True),
    sa.Column("person_id", sa.String(128), nullable=False),
    sa.Column("force", sa.String(128), nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("case_reference", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("watchlists", sa.JSON, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
    # A key belongs to the person who used it; null is equal to nothing.
    sa.Column("idempotency_key", sa.String(200)),
    # The answer's JSON as it was given out.
    sa.Column("document", sa.LargeBinary),
    sa.UniqueConstraint("force", "person_id", "idempotency_key", name="uq_consortium_searches_key"),
)

# Questions whose terminal audit entry is not known to be in the log yet.
exchanges = sa.Table(
    "partner_exchanges",
    metadata,
    sa.Column("activity_id", sa.String(36), primary_key=True),
    sa.Column("outcome_entry_id", sa.String(36), nullable=False, unique=True),
    sa.Column("direction", sa.String(16), nullable=False),
    sa.Column("partner", sa.String(63), nullable=False),
    sa.Column("person_id", sa.String(128), nullable=False),
    sa.Column("force", sa.String(128), nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("case_reference", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("objects", sa.JSON, nullable=False),
    sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
)

# Tokens of partners that were used and have not expired: a minute's worth.
used_tokens = sa.Table(
    "partner_used_tokens",
    metadata,
    sa.Column("token_id", sa.String(36), primary_key=True),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
)
