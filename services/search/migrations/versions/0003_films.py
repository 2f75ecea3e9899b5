"""Films, what is read of them, their tracks and what was picked."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "films",
        sa.Column("film_id", sa.String(36), primary_key=True),
        sa.Column("outcome_entry_id", sa.String(36), nullable=False, unique=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("person_id", sa.String(128), nullable=False),
        sa.Column("force", sa.String(128), nullable=False),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("case_reference", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("watchlists", sa.JSON, nullable=False),
        sa.Column("texts", sa.JSON, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("pieces", sa.JSON, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("description", sa.JSON),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.Column("segments_read", sa.Integer, nullable=False),
        sa.Column("frames_looked_at", sa.BigInteger, nullable=False),
        sa.Column("read_s", sa.Double, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("claimed_by", sa.String(64), nullable=False),
        sa.Column("claimed_until_s", sa.Double, nullable=False),
        sa.Column("problem", sa.JSON),
        sa.Column("is_closed", sa.Boolean, nullable=False),
    )
    unclosed = sa.text("NOT is_closed")
    op.create_index("films_unclosed", "films", ["opened_at"], sqlite_where=unclosed, postgresql_where=unclosed)
    op.create_table(
        "film_segments",
        _film(),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("film_id", "number"),
    )
    op.create_table(
        "film_tracks",
        _film(),
        sa.Column("track", sa.Integer, nullable=False),
        sa.Column("appearances", sa.JSON, nullable=False),
        sa.Column("frames_seen", sa.Integer, nullable=False),
        sa.Column("quality", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("film_id", "track"),
    )
    op.create_table(
        "film_stills",
        _film(),
        sa.Column("track", sa.Integer, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("frame_number", sa.BigInteger, nullable=False),
        sa.Column("pts", sa.BigInteger, nullable=False),
        sa.Column("time_s", sa.Double, nullable=False),
        sa.Column("face", sa.Integer, nullable=False),
        sa.Column("quality", sa.Double, nullable=False),
        sa.Column("inter_eye_px", sa.Double, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("chip_jpeg", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("film_id", "track", "place"),
    )
    op.create_table(
        "film_picks",
        sa.Column("search_id", sa.String(36), primary_key=True),
        _film(),
        sa.Column("track", sa.Integer, nullable=False),
        sa.Column("person_id", sa.String(128), nullable=False),
        sa.Column("picked_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("film_picks_film", "film_picks", ["film_id"])


def _film() -> sa.Column[str]:
    return sa.Column("film_id", sa.String(36), sa.ForeignKey("films.film_id", ondelete="CASCADE"), nullable=False)


def downgrade() -> None:
    for table in ("film_picks", "film_stills", "film_tracks", "film_segments", "films"):
        op.drop_table(table)
