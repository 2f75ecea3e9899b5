"""The log: entries, checkpoints, keys; append-only by triggers on every table."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("entry", "checkpoint", "signing_key", "log")
REFUSAL = "the audit log is append-only"


def upgrade() -> None:
    op.create_table(
        "log",
        sa.Column("log_id", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    op.create_table(
        "signing_key",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("since_size", sa.BigInteger, nullable=False),
        sa.Column("published_at", sa.Text, nullable=False),
    )
    op.create_table(
        "checkpoint",
        sa.Column("tree_size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("log_id", sa.Text, nullable=False),
        sa.Column("root_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "entry",
        # INTEGER PRIMARY KEY is SQLite's row id: the table itself is in the order of the log.
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("entry_id", sa.Text, nullable=False, unique=True),
        sa.Column("activity", sa.Text, nullable=False),
        sa.Column("activity_id", sa.Text, nullable=False, index=True),
        sa.Column("person_id", sa.Text, nullable=False),
        sa.Column("case_reference", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.Text, nullable=False, index=True),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.Column("canonical", sa.LargeBinary, nullable=False),
    )
    for column in ("activity", "person_id", "case_reference"):
        op.create_index(f"ix_entry_{column}", "entry", [column, "sequence"])
    # The one row that may change: written to find out whether the store can be written.
    op.create_table(
        "heartbeat",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("beats", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO heartbeat (id, beats) VALUES (1, 0)")
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def _guard_sqlite() -> None:
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
            )
    # Also keeps INSERT OR REPLACE from replacing, which fires no DELETE trigger.
    op.execute(
        "CREATE TRIGGER entry_no_gap BEFORE INSERT ON entry "
        "WHEN NEW.sequence <> (SELECT coalesce(max(sequence) + 1, 0) FROM entry) "
        "BEGIN SELECT RAISE(ABORT, 'the audit log has no gaps'); END"
    )
    for table, condition in (
        ("checkpoint", "EXISTS (SELECT 1 FROM checkpoint WHERE tree_size >= NEW.tree_size)"),
        ("signing_key", "EXISTS (SELECT 1 FROM signing_key WHERE key_id = NEW.key_id)"),
        ("log", "EXISTS (SELECT 1 FROM log)"),
    ):
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
        )
    op.execute(
        "CREATE FUNCTION audit_no_gap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.sequence <> (SELECT coalesce(max(sequence) + 1, 0) FROM entry) THEN "
        "RAISE EXCEPTION 'the audit log has no gaps'; END IF; RETURN NEW; END $$"
    )
    op.execute("CREATE TRIGGER entry_no_gap BEFORE INSERT ON entry FOR EACH ROW EXECUTE FUNCTION audit_no_gap()")
