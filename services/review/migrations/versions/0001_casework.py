"""Cases, examinations, trainings, open acts, numbers, idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review_cases",
        sa.Column("request_id", sa.String(36), primary_key=True),
        sa.Column("number", sa.String(32), nullable=False),
        sa.Column("force", sa.String(128), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("requested_by", sa.String(128), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("force", "number", name="uq_review_cases_number"),
    )
    op.create_index("review_cases_queue", "review_cases", ["force", "state", "due_at"])
    op.create_table(
        "review_examinations",
        sa.Column("examination_id", sa.String(36), primary_key=True),
        sa.Column("request_id", sa.String(36), sa.ForeignKey("review_cases.request_id"), nullable=False),
        sa.Column("force", sa.String(128), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("examiner", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("request_id", "ordinal", name="uq_review_examinations_ordinal"),
        sa.UniqueConstraint("request_id", "examiner", name="uq_review_examinations_examiner"),
    )
    op.create_index("review_examinations_force", "review_examinations", ["force", "started_at"])
    op.create_table(
        "review_trainings",
        sa.Column("training_id", sa.String(36), primary_key=True),
        sa.Column("force", sa.String(128), nullable=False),
        sa.Column("person_id", sa.String(128), nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
    )
    op.create_index("review_trainings_person", "review_trainings", ["force", "person_id", "training_id"])
    op.create_table(
        "review_open_acts",
        sa.Column("activity_id", sa.String(36), primary_key=True),
        sa.Column("outcome_entry_id", sa.String(36), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "review_numbers",
        sa.Column("force", sa.String(128), primary_key=True),
        sa.Column("year", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("last", sa.Integer, nullable=False),
    )
    op.create_table(
        "review_idempotency_keys",
        sa.Column("force", sa.String(128), primary_key=True),
        sa.Column("person_id", sa.String(128), primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(36), sa.ForeignKey("review_cases.request_id"), nullable=False),
    )


def downgrade() -> None:
    for table in (
        "review_idempotency_keys",
        "review_numbers",
        "review_open_acts",
        "review_trainings",
        "review_examinations",
        "review_cases",
    ):
        op.drop_table(table)
