"""The tables of the gallery's life beside the ledger's: erasures, custody facts, receipts of the feed, reviews.

Alembic makes them; a test holds the two together. Times are milliseconds since 1970 UTC.
"""

from __future__ import annotations

import sqlalchemy as sa

from services.ingest.adapters.schema import metadata

# A command to erase and how far it is.
erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("erasure_id", sa.String(36), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("subject_id", sa.Text, nullable=False),
    # Whether the subject as a whole is erased or the enrolments named alone.
    sa.Column("is_whole_subject", sa.Boolean, nullable=False),
    sa.Column("enrolment_ids", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("authority", sa.Text, nullable=False),
    sa.Column("person_id", sa.Text, nullable=False),
    sa.Column("requested_at_ms", sa.BigInteger, nullable=False),
    # Until then the references are out of search and can be put back; 0 for at once.
    sa.Column("due_at_ms", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("finished_at_ms", sa.BigInteger, nullable=True),
    # What was found and removed, by store, as JSON; grows step by step, so that a repetition loses no count.
    sa.Column("done", sa.Text, nullable=False),
    sa.Column("certificate", sa.Text, nullable=False),
    sa.Index("ix_erasures_owner", "owner", "erasure_id"),
    sa.Index("ix_erasures_state", "state"),
)

# What a custody system says of one custody record. Newer statements replace older ones, in whatever order they come.
custody_facts = sa.Table(
    "custody_facts",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    # The owner's own number, one for each time that somebody is taken into custody.
    sa.Column("custody_reference", sa.Text, primary_key=True),
    sa.Column("subject_id", sa.Text, nullable=False),
    sa.Column("disposal", sa.String(32), nullable=False),
    sa.Column("disposal_on", sa.String(10), nullable=False),
    sa.Column("disposal_as_of_ms", sa.BigInteger, nullable=False),
    sa.Column("birth_band", sa.String(16), nullable=False),
    sa.Column("is_notice_given", sa.Boolean, nullable=True),
)

# What belongs to one image beside the ledger's own row.
enrolment_facts = sa.Table(
    "enrolment_facts",
    metadata,
    sa.Column("enrolment_id", sa.String(36), primary_key=True),
    sa.Column("custody_reference", sa.Text, nullable=False),
    sa.Column("birth_band", sa.String(16), nullable=False),
    sa.Column("is_notice_given", sa.Boolean, nullable=True),
    sa.Column("capture_device", sa.Text, nullable=False),
    sa.Column("pose", sa.String(32), nullable=False),
    sa.Column("event_id", sa.Text, nullable=False),
)

# Subjects that the owner has merged into another, and single images that it has moved to another subject.
subject_links = sa.Table(
    "subject_links",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("subject_id", sa.Text, primary_key=True),
    # Empty for the subject as a whole.
    sa.Column("image_sha256", sa.String(64), primary_key=True),
    sa.Column("moved_to", sa.Text, nullable=False),
    sa.Column("as_of_ms", sa.BigInteger, nullable=False),
)

# One for every input of the feed, by the producer's own id.
feed_receipts = sa.Table(
    "feed_receipts",
    metadata,
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
    sa.Index("ix_feed_receipts_received", "owner", "received_at_ms"),
    sa.Index("ix_feed_receipts_enrolment", "enrolment_id"),
)

# What a person decided when a reference came up for review.
review_decisions = sa.Table(
    "review_decisions",
    metadata,
    sa.Column("decision_id", sa.String(36), primary_key=True),
    sa.Column("enrolment_id", sa.String(36), nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("person_id", sa.Text, nullable=False),
    sa.Column("decided_at_ms", sa.BigInteger, nullable=False),
    # The day of the next review; empty where the image is to be erased.
    sa.Column("next_due_on", sa.String(10), nullable=False),
    sa.Index("ix_review_decisions_enrolment", "enrolment_id", "decided_at_ms"),
)

# One row: the wall clock as this service last saw it, and whether somebody has to look at it first.
clock_marks = sa.Table(
    "clock_marks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("wall_ms", sa.BigInteger, nullable=False),
    sa.Column("distrusted_since_ms", sa.BigInteger, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)
