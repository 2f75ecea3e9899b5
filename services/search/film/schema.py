"""The tables of films, beside those of searches. The migrations make them."""

import sqlalchemy as sa

from services.search.adapters.schema import metadata

films = sa.Table(
    "films",
    metadata,
    sa.Column("film_id", sa.String(36), primary_key=True),
    sa.Column("outcome_entry_id", sa.String(36), nullable=False, unique=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("person_id", sa.String(128), nullable=False),
    sa.Column("force", sa.String(128), nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("case_reference", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("watchlists", sa.JSON, nullable=False),
    # The form as it was sent: that of every search of one of the film's tracks.
    sa.Column("texts", sa.JSON, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    # The images, in order, that hold its bytes.
    sa.Column("pieces", sa.JSON, nullable=False),
    sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("description", sa.JSON(none_as_null=True)),
    sa.Column("warnings", sa.JSON, nullable=False),
    sa.Column("segments_read", sa.Integer, nullable=False),
    sa.Column("frames_looked_at", sa.BigInteger, nullable=False),
    sa.Column("read_s", sa.Double, nullable=False),
    # Failures in a row; what was read sets it to 0.
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("claimed_by", sa.String(64), nullable=False),
    sa.Column("claimed_until_s", sa.Double, nullable=False),
    sa.Column("problem", sa.JSON(none_as_null=True)),
    # Whether the terminal audit entry is known to be in the log.
    sa.Column("is_closed", sa.Boolean, nullable=False),
    # Of the request that it came of; a person's own.
    sa.Column("idempotency_key", sa.String(200)),
    sa.Column("retain_until", sa.Date),
    # Who erased it, when and why; then `pieces` has what is still to be removed from the image store.
    sa.Column("erasure", sa.JSON(none_as_null=True)),
    sa.Index("films_keys", "force", "person_id", "idempotency_key", unique=True),
    sa.Index(
        "films_unclosed", "opened_at", sqlite_where=sa.text("NOT is_closed"), postgresql_where=sa.text("NOT is_closed")
    ),
)

film_segments = sa.Table(
    "film_segments",
    metadata,
    sa.Column("film_id", sa.String(36), sa.ForeignKey("films.film_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    # A FilmSegment with templates; forgotten once tracks are made.
    sa.Column("message", sa.LargeBinary, nullable=False),
)

film_tracks = sa.Table(
    "film_tracks",
    metadata,
    sa.Column("film_id", sa.String(36), sa.ForeignKey("films.film_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("track", sa.Integer, primary_key=True),
    sa.Column("appearances", sa.JSON, nullable=False),
    sa.Column("frames_seen", sa.Integer, nullable=False),
    sa.Column("quality", sa.Double, nullable=False),
)

film_stills = sa.Table(
    "film_stills",
    metadata,
    sa.Column("film_id", sa.String(36), sa.ForeignKey("films.film_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("track", sa.Integer, primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("frame_number", sa.BigInteger, nullable=False),
    sa.Column("pts", sa.BigInteger, nullable=False),
    sa.Column("time_s", sa.Double, nullable=False),
    sa.Column("face", sa.Integer, nullable=False),
    sa.Column("quality", sa.Double, nullable=False),
    sa.Column("inter_eye_px", sa.Double, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("chip_jpeg", sa.LargeBinary, nullable=False),
)

film_picks = sa.Table(
    "film_picks",
    metadata,
    sa.Column("search_id", sa.String(36), primary_key=True),
    sa.Column("film_id", sa.String(36), sa.ForeignKey("films.film_id", ondelete="CASCADE"), nullable=False),
    sa.Column("track", sa.Integer, nullable=False),
    sa.Column("person_id", sa.String(128), nullable=False),
    sa.Column("picked_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("film_picks_film", "film_id"),
)
