"""The tables of ingest. Alembic makes them (services/ingest/migrations); a test holds the two together.

Times are milliseconds since 1970 UTC: they sort and compare alike in SQLite and PostgreSQL.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

# SQLite counts rowids only in a column of type INTEGER.
_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# One row. Whoever changes a reference takes the next number; its row lock orders the takers by commit.
ledger_sequence = sa.Table(
    "ledger_sequence",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# Every combination of networks, preprocessing and runtime that made a template of this ledger.
model_provenance = sa.Table(
    "model_provenance",
    metadata,
    sa.Column("provenance_id", sa.String(64), primary_key=True),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("detector", sa.Text, nullable=False),
    sa.Column("detector_sha256", sa.String(64), nullable=False),
    sa.Column("recogniser", sa.Text, nullable=False),
    sa.Column("recogniser_sha256", sa.String(64), nullable=False),
    sa.Column("licence", sa.Text, nullable=False),
    sa.Column("dimension", sa.Integer, nullable=False),
    sa.Column("preprocessing_version", sa.Text, nullable=False),
    sa.Column("runtime", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
)

enrolments = sa.Table(
    "enrolments",
    metadata,
    sa.Column("enrolment_id", sa.String(36), primary_key=True),
    sa.Column("reference_id", sa.String(36), nullable=False, unique=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("watchlist_id", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("subject_id", sa.Text, nullable=False),
    sa.Column("lawful_basis", sa.Text, nullable=False),
    sa.Column("captured_on", sa.String(10), nullable=False),
    sa.Column("agreement_reference", sa.Text, nullable=False),
    # Empty for a synthetic reference, which has no image.
    sa.Column("image_sha256", sa.String(64), nullable=False),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("person_id", sa.Text, nullable=False),
    sa.Column("force", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    # The verdict stands here before it is acted on; empty until then.
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("template", sa.LargeBinary, nullable=True),
    sa.Column("dimension", sa.Integer, nullable=False),
    sa.Column("licence", sa.Text, nullable=False),
    sa.Column("provenance_id", sa.String(64), sa.ForeignKey("model_provenance.provenance_id"), nullable=True),
    sa.Column("unified_quality", sa.Float, nullable=True),
    sa.Column("quality_components", sa.Text, nullable=False),
    sa.Column("inter_eye_px", sa.Float, nullable=True),
    # How often it was claimed, and how often analysing it took the analyser down.
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("leased_by", sa.Text, nullable=False),
    sa.Column("leased_until_ms", sa.BigInteger, nullable=False),
    sa.Column("accepted_at_ms", sa.BigInteger, nullable=False),
    sa.Column("decided_at_ms", sa.BigInteger, nullable=True),
    sa.Column("settled_at_ms", sa.BigInteger, nullable=True),
    # Unix seconds after which it must not be returned; 0 for never.
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("withdrawn_at_ms", sa.BigInteger, nullable=True),
    sa.Column("withdrawn_by", sa.Text, nullable=False),
    sa.Column("withdrawal_reason", sa.Text, nullable=False),
    # False while the gallery may still hold a withdrawn reference.
    sa.Column("is_withdrawal_settled", sa.Boolean, nullable=False),
    # The trace that it was accepted in, so that working it off goes on with it; empty where there was none.
    sa.Column("traceparent", sa.String(55), nullable=False, server_default=""),
    sa.UniqueConstraint(
        "watchlist_id", "owner", "subject_id", "image_sha256", "model_id", name="uq_enrolments_idempotency"
    ),
    sa.Index("ix_enrolments_state", "watchlist_id", "state", "source", "owner"),
    sa.Index("ix_enrolments_ledger_order", "watchlist_id", "version"),
    sa.Index("ix_enrolments_owner", "owner", "state", "enrolment_id"),
    sa.Index("ix_enrolments_image", "image_sha256"),
    sa.Index(
        "ix_enrolments_pending",
        "version",
        sqlite_where=sa.text("state = 'accepted'"),
        postgresql_where=sa.text("state = 'accepted'"),
    ),
    sa.Index(
        "ix_enrolments_withdrawing",
        "version",
        sqlite_where=sa.text("is_withdrawal_settled = false"),
        postgresql_where=sa.text("is_withdrawal_settled = false"),
    ),
)

# Audit intents whose enrolment has not reached the ledger. What a crash leaves here is closed after the restart.
open_intents = sa.Table(
    "open_intents",
    metadata,
    sa.Column("enrolment_id", sa.String(36), primary_key=True),
    sa.Column("instance", sa.Text, nullable=False),
    sa.Column("opened_at_ms", sa.BigInteger, nullable=False),
    # What the intent's entry says, as JSON, so that it can be written again.
    sa.Column("intent", sa.Text, nullable=False),
)

# Images that are about to be removed from their store: no enrolment of them is accepted until they are let go.
image_holds = sa.Table(
    "image_holds",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    # Who removes it, a new id for each removal, and the process that it runs in.
    sa.Column("holder", sa.String(36), nullable=False),
    sa.Column("instance", sa.Text, nullable=False),
    sa.Column("held_at_ms", sa.BigInteger, nullable=False),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    # The caller: "<force>/<person>".
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_digest", sa.String(64), nullable=False),
    sa.Column("enrolment_id", sa.String(36), nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
)

# Events that belong to committed ledger rows and are not published yet. Published ones are deleted.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", _COUNTER, primary_key=True, autoincrement=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
