"""Which request a film came of, until when it is retained, and that it was erased."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("films") as films:
        films.add_column(sa.Column("idempotency_key", sa.String(200)))
        # Null for films of before: they are held to no day, as they were told none.
        films.add_column(sa.Column("retain_until", sa.Date))
        films.add_column(sa.Column("erasure", sa.JSON))
    op.create_index("films_keys", "films", ["force", "person_id", "idempotency_key"], unique=True)


def downgrade() -> None:
    op.drop_index("films_keys", "films")
    with op.batch_alter_table("films") as films:
        for column in ("erasure", "retain_until", "idempotency_key"):
            films.drop_column(column)
