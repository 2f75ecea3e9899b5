"""The tables of review, under names that may share a database with other services'. The migrations make them.

A case and an examination are documents with a version: what is asked for by is a column beside the document.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

cases = sa.Table(
    "review_cases",
    metadata,
    sa.Column("request_id", sa.String(36), primary_key=True),
    sa.Column("number", sa.String(32), nullable=False),
    sa.Column("force", sa.String(128), nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("requested_by", sa.String(128), nullable=False),
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("force", "number", name="uq_review_cases_number"),
    sa.Index("review_cases_queue", "force", "state", "due_at"),
)

examinations = sa.Table(
    "review_examinations",
    metadata,
    sa.Column("examination_id", sa.String(36), primary_key=True),
    sa.Column("request_id", sa.String(36), sa.ForeignKey("review_cases.request_id"), nullable=False),
    sa.Column("force", sa.String(128), nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("examiner", sa.String(128), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    # One first and one second review of a case, and nobody does both: the database says no, whoever asks.
    sa.UniqueConstraint("request_id", "ordinal", name="uq_review_examinations_ordinal"),
    sa.UniqueConstraint("request_id", "examiner", name="uq_review_examinations_examiner"),
    sa.Index("review_examinations_force", "force", "started_at"),
)

pictures = sa.Table(
    "review_pictures",
    metadata,
    # What a case holds in the image store, where the same picture of two cases is stored once.
    sa.Column("request_id", sa.String(36), sa.ForeignKey("review_cases.request_id"), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Index("review_pictures_sha256", "sha256"),
)

trainings = sa.Table(
    "review_trainings",
    metadata,
    # UUIDv7: the newest of a person is the one with the highest id.
    sa.Column("training_id", sa.String(36), primary_key=True),
    sa.Column("force", sa.String(128), nullable=False),
    sa.Column("person_id", sa.String(128), nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Index("review_trainings_person", "force", "person_id", "training_id"),
)

open_acts = sa.Table(
    "review_open_acts",
    metadata,
    sa.Column("activity_id", sa.String(36), primary_key=True),
    sa.Column("outcome_entry_id", sa.String(36), nullable=False),
    sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),
)

numbers = sa.Table(
    "review_numbers",
    metadata,
    sa.Column("force", sa.String(128), primary_key=True),
    sa.Column("year", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("last", sa.Integer, nullable=False),
)

idempotency_keys = sa.Table(
    "review_idempotency_keys",
    metadata,
    # A key belongs to the person who used it.
    sa.Column("force", sa.String(128), primary_key=True),
    sa.Column("person_id", sa.String(128), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(36), sa.ForeignKey("review_cases.request_id"), nullable=False),
)

sessions = sa.Table(
    "review_sessions",
    metadata,
    # SHA-256 of the cookie; what is sealed is opened by the cookie alone.
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("person_id", sa.String(128), nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("address", sa.String(64), nullable=False, server_default=""),
    sa.Column("agent", sa.String(64), nullable=False, server_default=""),
    sa.Column("replaced", sa.Text, nullable=False, server_default=""),
    sa.Index("review_sessions_person", "person_id"),
    sa.Index("review_sessions_seen", "seen_at"),
)

ended_sessions = sa.Table(
    "review_ended_sessions",
    metadata,
    # Of what is over: why, for its person to read, and when it was last used. Nothing of whom it was.
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("why", sa.String(16), nullable=False),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("review_ended_sessions_seen", "seen_at"),
)
