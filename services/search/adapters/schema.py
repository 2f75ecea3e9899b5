"""The tables of search, under names that may share a database with other services'. The migrations make them."""

import sqlalchemy as sa

from services.rpc.sql_open_acts import open_acts_table

metadata = sa.MetaData()

searches = sa.Table(
    "searches",
    metadata,
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
    # The model that made the probe's template.
    sa.Column("model_id", sa.Text),
    # Since when its sealed probe is gone, because its case is over.
    sa.Column("probe_erased_at", sa.DateTime(timezone=True)),
    # JSON as it was given out, so that it can be given out again byte for byte: faces, candidates, statements, …
    sa.Column("result", sa.LargeBinary),
    sa.Column("problem", sa.JSON(none_as_null=True)),
    # Known only when the outcome has been recorded, after the answer was stored.
    sa.Column("timings_ms", sa.JSON(none_as_null=True)),
    # Whether the terminal audit entry is known to be in the log.
    sa.Column("is_closed", sa.Boolean, nullable=False),
    # With the rest what a decision is made about, so that another policy can be tried on it; null before 0002.
    sa.Column("case_type", sa.String(16)),
    sa.Column("permitted_watchlists", sa.JSON(none_as_null=True)),
    sa.Column("trained_until", sa.Date),
    # Digest of the policies by which it was permitted.
    sa.Column("policy", sa.String(64)),
    # What the picture was declared to be; null before 0009.
    sa.Column("nature", sa.String(16)),
    # At start and every few seconds those without a known outcome are looked for; there are few of them.
    sa.Index(
        "searches_unclosed",
        "opened_at",
        sqlite_where=sa.text("NOT is_closed"),
        postgresql_where=sa.text("NOT is_closed"),
    ),
    sa.Index("searches_case", "force", "case_reference"),
    sa.Index("searches_opened", "opened_at"),
    sa.Index("searches_probe", "probe_sha256"),
)

candidates = sa.Table(
    "search_candidates",
    metadata,
    sa.Column("search_id", sa.String(36), sa.ForeignKey("searches.search_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("rank", sa.Integer, primary_key=True),
    sa.Column("subject_id", sa.Text, nullable=False),
    sa.Column("reference_id", sa.String(36), nullable=False),
    sa.Column("watchlist_id", sa.String(64), nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("score", sa.Double, nullable=False),
    # Which searches returned a reference: what its owner, or its subject, may ask.
    sa.Index("search_candidates_reference", "reference_id"),
)

idempotency_keys = sa.Table(
    "search_idempotency_keys",
    metadata,
    # A key belongs to the person who used it.
    sa.Column("force", sa.String(128), primary_key=True),
    sa.Column("person_id", sa.String(128), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("search_id", sa.String(36), sa.ForeignKey("searches.search_id", ondelete="CASCADE"), nullable=False),
)

agreement_records = sa.Table(
    "agreement_records",
    metadata,
    # The order in which they were added. Rows are added, never changed.
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("reference", sa.String(63), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    # The bytes that were signed, and by which key; null where an owner's administrator withdrew without one.
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("key_id", sa.String(63)),
    sa.Column("signature", sa.String(88)),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("recorded_by", sa.String(128), nullable=False),
    sa.Column("recorded_by_force", sa.String(128), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.UniqueConstraint("reference", "version", name="agreement_records_version"),
)

# Requests that the policy denied: they were never opened, but a changed policy is tried on them too.
denied_requests = sa.Table(
    "denied_requests",
    metadata,
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
    sa.Column("nature", sa.String(16)),
    sa.Index("denied_requests_opened", "opened_at"),
)

open_acts = open_acts_table("open_acts", metadata)

# Each serves one disclosure of one search to one recipient.
disclosure_approvals = sa.Table(
    "disclosure_approvals",
    metadata,
    sa.Column("approval_id", sa.String(36), primary_key=True),
    sa.Column("search_id", sa.String(36), sa.ForeignKey("searches.search_id", ondelete="CASCADE"), nullable=False),
    sa.Column("recipient", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("approved_by", sa.String(128), nullable=False),
    sa.Column("approved_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("used_at", sa.DateTime(timezone=True)),
)
