"""The gallery's life: erasures, custody facts, receipts of the feed, reviews, the clock.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _make_erasures()
    _make_custody_facts()
    _make_enrolment_facts()
    _make_subject_links()
    _make_feed_receipts()
    _make_review_decisions()
    _make_clock_marks()


def downgrade() -> None:
    for name in (
        "clock_marks",
        "review_decisions",
        "feed_receipts",
        "subject_links",
        "enrolment_facts",
        "custody_facts",
        "erasures",
    ):
        op.drop_table(name)


def _make_erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("erasure_id", sa.String(36), primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("is_whole_subject", sa.Boolean, nullable=False),
        sa.Column("enrolment_ids", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("authority", sa.Text, nullable=False),
        sa.Column("person_id", sa.Text, nullable=False),
        sa.Column("requested_at_ms", sa.BigInteger, nullable=False),
        sa.Column("due_at_ms", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("finished_at_ms", sa.BigInteger, nullable=True),
        sa.Column("done", sa.Text, nullable=False),
        sa.Column("certificate", sa.Text, nullable=False),
    )
    op.create_index("ix_erasures_owner", "erasures", ["owner", "erasure_id"])
    op.create_index("ix_erasures_state", "erasures", ["state"])


def _make_custody_facts() -> None:
    op.create_table(
        "custody_facts",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("custody_reference", sa.Text, primary_key=True),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("disposal", sa.String(32), nullable=False),
        sa.Column("disposal_on", sa.String(10), nullable=False),
        sa.Column("disposal_as_of_ms", sa.BigInteger, nullable=False),
        sa.Column("birth_band", sa.String(16), nullable=False),
        sa.Column("is_notice_given", sa.Boolean, nullable=True),
    )


def _make_enrolment_facts() -> None:
    op.create_table(
        "enrolment_facts",
        sa.Column("enrolment_id", sa.String(36), primary_key=True),
        sa.Column("custody_reference", sa.Text, nullable=False),
        sa.Column("birth_band", sa.String(16), nullable=False),
        sa.Column("is_notice_given", sa.Boolean, nullable=True),
        sa.Column("capture_device", sa.Text, nullable=False),
        sa.Column("pose", sa.String(32), nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
    )


def _make_subject_links() -> None:
    op.create_table(
        "subject_links",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("subject_id", sa.Text, primary_key=True),
        sa.Column("image_sha256", sa.String(64), primary_key=True),
        sa.Column("moved_to", sa.Text, nullable=False),
        sa.Column("as_of_ms", sa.BigInteger, nullable=False),
    )


def _make_feed_receipts() -> None:
    op.create_table(
        "feed_receipts",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("occurred_at_ms", sa.BigInteger, nullable=False),
        sa.Column("received_at_ms", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("enrolment_id", sa.String(36), nullable=False),
    )
    op.create_index("ix_feed_receipts_received", "feed_receipts", ["owner", "received_at_ms"])
    op.create_index("ix_feed_receipts_enrolment", "feed_receipts", ["enrolment_id"])


def _make_review_decisions() -> None:
    op.create_table(
        "review_decisions",
        sa.Column("decision_id", sa.String(36), primary_key=True),
        sa.Column("enrolment_id", sa.String(36), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("person_id", sa.Text, nullable=False),
        sa.Column("decided_at_ms", sa.BigInteger, nullable=False),
        sa.Column("next_due_on", sa.String(10), nullable=False),
    )
    op.create_index("ix_review_decisions_enrolment", "review_decisions", ["enrolment_id", "decided_at_ms"])


def _make_clock_marks() -> None:
    op.create_table(
        "clock_marks",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("wall_ms", sa.BigInteger, nullable=False),
        sa.Column("distrusted_since_ms", sa.BigInteger, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
