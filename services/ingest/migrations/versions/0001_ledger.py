"""The enrolment ledger, its outbox and what keeps acceptance idempotent.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _make_sequence()
    _make_provenance()
    _make_enrolments()
    _make_acceptance()
    _make_outbox()


def downgrade() -> None:
    for name in ("outbox", "idempotency_keys", "open_intents", "enrolments", "model_provenance", "ledger_sequence"):
        op.drop_table(name)


def _make_sequence() -> None:
    sequence = op.create_table(
        "ledger_sequence",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(sequence, [{"id": 1, "value": 0}])


def _make_provenance() -> None:
    texts = ("model_id", "detector", "recogniser", "licence", "preprocessing_version", "runtime", "provider")
    op.create_table(
        "model_provenance",
        sa.Column("provenance_id", sa.String(64), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        sa.Column("detector_sha256", sa.String(64), nullable=False),
        sa.Column("recogniser_sha256", sa.String(64), nullable=False),
        sa.Column("dimension", sa.Integer, nullable=False),
    )


def _make_enrolments() -> None:
    op.create_table(
        "enrolments",
        sa.Column("enrolment_id", sa.String(36), primary_key=True),
        sa.Column("reference_id", sa.String(36), nullable=False, unique=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("watchlist_id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("lawful_basis", sa.Text, nullable=False),
        sa.Column("captured_on", sa.String(10), nullable=False),
        sa.Column("agreement_reference", sa.Text, nullable=False),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("person_id", sa.Text, nullable=False),
        sa.Column("force", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
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
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("leased_by", sa.Text, nullable=False),
        sa.Column("leased_until_ms", sa.BigInteger, nullable=False),
        sa.Column("accepted_at_ms", sa.BigInteger, nullable=False),
        sa.Column("decided_at_ms", sa.BigInteger, nullable=True),
        sa.Column("settled_at_ms", sa.BigInteger, nullable=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("withdrawn_at_ms", sa.BigInteger, nullable=True),
        sa.Column("withdrawn_by", sa.Text, nullable=False),
        sa.Column("withdrawal_reason", sa.Text, nullable=False),
        sa.Column("is_withdrawal_settled", sa.Boolean, nullable=False),
        sa.UniqueConstraint(
            "watchlist_id", "owner", "subject_id", "image_sha256", "model_id", name="uq_enrolments_idempotency"
        ),
    )
    op.create_index("ix_enrolments_state", "enrolments", ["watchlist_id", "state", "source", "owner"])
    op.create_index("ix_enrolments_ledger_order", "enrolments", ["watchlist_id", "version"])
    op.create_index("ix_enrolments_owner", "enrolments", ["owner", "state", "enrolment_id"])
    _make_partial_index("ix_enrolments_pending", "state = 'accepted'")
    _make_partial_index("ix_enrolments_withdrawing", "is_withdrawal_settled = false")


def _make_partial_index(name: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "enrolments", ["version"], sqlite_where=where, postgresql_where=where)


def _make_acceptance() -> None:
    op.create_table(
        "open_intents",
        sa.Column("enrolment_id", sa.String(36), primary_key=True),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("opened_at_ms", sa.BigInteger, nullable=False),
        sa.Column("intent", sa.Text, nullable=False),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("enrolment_id", sa.String(36), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )


def _make_outbox() -> None:
    op.create_table(
        "outbox",
        # SQLite counts rowids only in a column of type INTEGER.
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
