"""Films in a relational store, through SQLAlchemy: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.rpc.v1 import films_pb2
from services.search.film.ports import (
    TERMINAL,
    WORKABLE,
    FilmContents,
    FilmStatus,
    FilmTrack,
    NewFilm,
    Pick,
    StoredFilm,
    TrackStill,
)
from services.search.film.schema import film_picks, film_segments, film_stills, film_tracks, films
from services.search.film.sql_holding import removable_images
from services.shared.database import one_writer, transaction
from services.shared.errors import Conflict
from services.shared.tokens import Principal

_WORKABLE = [status.value for status in WORKABLE]
_TERMINAL = [status.value for status in TERMINAL]
_LISTED = 1000


class SqlFilmStore:
    """FilmStore on one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writing = one_writer(engine)

    def open(self, film: NewFilm) -> StoredFilm | None:
        with self._writing, self._transaction() as connection:
            earlier = _earlier(connection, film)
            if earlier is None:
                connection.execute(sa.insert(films), _row_of(film))
            return earlier

    def queue(self, film_id: str, pieces: Sequence[str]) -> None:
        self._update(film_id, status=FilmStatus.QUEUED.value, pieces=list(pieces))

    def find(self, film_id: str) -> StoredFilm | None:
        with self._transaction() as connection:
            row = connection.execute(sa.select(films).where(films.c.film_id == film_id)).one_or_none()
            return None if row is None else _stored(row)

    def claim(self, worker: str, now_s: float, until_s: float) -> StoredFilm | None:
        waiting = sa.and_(films.c.status.in_(_WORKABLE), films.c.claimed_until_s <= now_s)
        with self._writing, self._transaction() as connection:
            row = connection.execute(
                sa.select(films).where(waiting).order_by(films.c.failures, films.c.opened_at).limit(1)
            ).one_or_none()
            if row is None:
                return None
            claimed = connection.execute(
                sa.update(films)
                .where(films.c.film_id == row.film_id, waiting)
                .values(claimed_by=worker, claimed_until_s=until_s)
            )
            return _stored(row) if claimed.rowcount == 1 else None

    def renew(self, film_id: str, worker: str, until_s: float) -> bool:
        with self._writing, self._transaction() as connection:
            renewed = connection.execute(
                sa.update(films)
                .where(films.c.film_id == film_id, films.c.claimed_by == worker, films.c.status.in_(_WORKABLE))
                .values(claimed_until_s=until_s)
            )
            return renewed.rowcount == 1

    def release(self, film_id: str, worker: str, *, until_s: float, failures: int) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(
                sa.update(films)
                .where(films.c.film_id == film_id, films.c.claimed_by == worker)
                .values(claimed_until_s=until_s, failures=failures)
            )

    def describe(self, film_id: str, description: Mapping[str, Any], warnings: Sequence[str]) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(
                sa.update(films)
                .where(
                    films.c.film_id == film_id, films.c.status.in_([FilmStatus.QUEUED.value, FilmStatus.READING.value])
                )
                .values(status=FilmStatus.READING.value, description=dict(description))
            )
            self._add_warnings(connection, film_id, warnings)

    def add_segment(self, film_id: str, segment: films_pb2.FilmSegment, read_s: float) -> None:
        with self._writing, self._transaction() as connection:
            known = connection.execute(
                sa.select(film_segments.c.number).where(
                    film_segments.c.film_id == film_id, film_segments.c.number == segment.number
                )
            ).one_or_none()
            film = connection.execute(sa.select(films.c.status).where(films.c.film_id == film_id)).scalar_one_or_none()
            if known is not None or film != FilmStatus.READING.value:
                return
            connection.execute(
                sa.insert(film_segments),
                {"film_id": film_id, "number": segment.number, "message": segment.SerializeToString()},
            )
            connection.execute(
                sa.update(films)
                .where(films.c.film_id == film_id)
                .values(
                    segments_read=segment.number + 1,
                    frames_looked_at=films.c.frames_looked_at + segment.frames_looked_at,
                    read_s=films.c.read_s + read_s,
                    failures=0,
                )
            )
            if segment.problem:
                self._add_warnings(connection, film_id, [f"segment {segment.number}: {segment.problem}"])

    def segments(self, film_id: str) -> Sequence[films_pb2.FilmSegment]:
        query = (
            sa.select(film_segments.c.message)
            .where(film_segments.c.film_id == film_id)
            .order_by(film_segments.c.number)
        )
        with self._transaction() as connection:
            return [films_pb2.FilmSegment.FromString(message) for message in connection.execute(query).scalars()]

    def warn(self, film_id: str, warning: str) -> None:
        with self._writing, self._transaction() as connection:
            self._add_warnings(connection, film_id, [warning])

    def set_status(self, film_id: str, status: FilmStatus) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(
                sa.update(films)
                .where(films.c.film_id == film_id, films.c.status.in_(_WORKABLE))
                .values(status=status.value)
            )

    def put_tracks(self, film_id: str, tracks: Sequence[FilmTrack]) -> None:
        track_rows = [_track_row(film_id, track) for track in tracks]
        still_rows = [
            _still_row(film_id, track.track, place, still)
            for track in tracks
            for place, still in enumerate(track.stills)
        ]
        with self._writing, self._transaction() as connection:
            moved = connection.execute(
                sa.update(films)
                .where(films.c.film_id == film_id, films.c.status == FilmStatus.CHOOSING.value)
                .values(status=FilmStatus.CLOSING.value, failures=0)
            )
            if moved.rowcount != 1:
                return
            self._forget(connection, film_id)
            if track_rows:
                connection.execute(sa.insert(film_tracks), track_rows)
            if still_rows:
                connection.execute(sa.insert(film_stills), still_rows)

    def contents(self, film_id: str) -> FilmContents:
        with self._transaction() as connection:
            stills: dict[int, list[TrackStill]] = {}
            for row in connection.execute(
                sa.select(film_stills)
                .where(film_stills.c.film_id == film_id)
                .order_by(film_stills.c.track, film_stills.c.place)
            ):
                stills.setdefault(row.track, []).append(_still(row))
            tracks = [
                _track(row, tuple(stills.get(row.track, ())))
                for row in connection.execute(
                    sa.select(film_tracks).where(film_tracks.c.film_id == film_id).order_by(film_tracks.c.track)
                )
            ]
            picks = [
                Pick(row.track, row.search_id, row.person_id, _utc(row.picked_at))
                for row in connection.execute(
                    sa.select(film_picks).where(film_picks.c.film_id == film_id).order_by(film_picks.c.picked_at)
                )
            ]
            return FilmContents(tracks, picks)

    def stop(self, film_id: str, status: FilmStatus, problem: Mapping[str, Any]) -> bool:
        with self._writing, self._transaction() as connection:
            stopped = connection.execute(
                sa.update(films)
                .where(films.c.film_id == film_id, films.c.status.not_in(_TERMINAL))
                .values(status=status.value, problem=dict(problem))
            )
            if stopped.rowcount == 1:
                self._forget(connection, film_id)
            return stopped.rowcount == 1

    def close(self, film_id: str) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(
                sa.update(films)
                .where(films.c.film_id == film_id, films.c.status == FilmStatus.CLOSING.value)
                .values(status=FilmStatus.DONE.value)
            )
            connection.execute(sa.update(films).where(films.c.film_id == film_id).values(is_closed=True))

    def unclosed(self, limit: int) -> Sequence[StoredFilm]:
        ended = [*_TERMINAL, FilmStatus.OPENED.value]
        query = (
            sa.select(films)
            .where(sa.not_(films.c.is_closed), films.c.status.in_(ended))
            .order_by(films.c.opened_at)
            .limit(limit)
        )
        with self._transaction() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def erase(self, film_id: str, erasure: Mapping[str, Any]) -> Sequence[str]:
        with self._writing, self._transaction() as connection:
            row = connection.execute(sa.select(films).where(films.c.film_id == film_id)).one()
            if row.status == FilmStatus.ERASED.value:
                return list(row.pieces)
            images = removable_images(connection, row)
            self._forget(connection, film_id)
            connection.execute(
                sa.update(films)
                .where(films.c.film_id == film_id)
                .values(status=FilmStatus.ERASED.value, erasure=dict(erasure), pieces=images, description=None)
            )
            return images

    def removed(self, film_id: str) -> None:
        self._update(film_id, pieces=[])

    def listed(self, force: str) -> Sequence[StoredFilm]:
        query = (
            sa.select(films)
            .where(films.c.force == force, films.c.status != FilmStatus.ERASED.value)
            .order_by(films.c.opened_at, films.c.film_id)
            .limit(_LISTED)
        )
        with self._transaction() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def add_pick(self, film_id: str, pick: Pick) -> None:
        with self._writing, self._transaction() as connection:
            known = sa.select(film_picks.c.search_id).where(film_picks.c.search_id == pick.search_id)
            if connection.execute(known).one_or_none() is not None:
                return
            connection.execute(
                sa.insert(film_picks),
                {
                    "search_id": pick.search_id,
                    "film_id": film_id,
                    "track": pick.track,
                    "person_id": pick.person_id,
                    "picked_at": pick.picked_at.astimezone(UTC),
                },
            )

    def _update(self, film_id: str, **values: Any) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(sa.update(films).where(films.c.film_id == film_id).values(**values))

    def _forget(self, connection: sa.Connection, film_id: str) -> None:
        for table in (film_segments, film_stills, film_tracks):
            connection.execute(sa.delete(table).where(table.c.film_id == film_id))

    def _add_warnings(self, connection: sa.Connection, film_id: str, warnings: Sequence[str]) -> None:
        standing = connection.execute(sa.select(films.c.warnings).where(films.c.film_id == film_id)).scalar_one()
        added = [*standing, *(warning for warning in warnings if warning not in standing)]
        if added != standing:
            connection.execute(sa.update(films).where(films.c.film_id == film_id).values(warnings=added))

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The record of films cannot be used.", "search")


def _row_of(film: NewFilm) -> dict[str, Any]:
    return {
        "film_id": film.film_id,
        "outcome_entry_id": film.outcome_entry_id,
        "status": FilmStatus.OPENED.value,
        "person_id": film.principal.person_id,
        "force": film.principal.force,
        "roles": sorted(film.principal.roles),
        "case_reference": film.case_reference,
        "purpose": film.purpose,
        "watchlists": list(film.watchlists),
        "texts": {name: list(values) for name, values in film.texts.items()},
        "sha256": film.sha256,
        "size_bytes": film.size_bytes,
        "pieces": [],
        "opened_at": film.opened_at.astimezone(UTC),
        "warnings": [],
        "segments_read": 0,
        "frames_looked_at": 0,
        "read_s": 0.0,
        "failures": 0,
        "claimed_by": "",
        "claimed_until_s": 0.0,
        "is_closed": False,
        "idempotency_key": film.idempotency_key,
        "retain_until": film.retain_until,
    }


def _earlier(connection: sa.Connection, film: NewFilm) -> StoredFilm | None:
    """What the same request made before. A film that failed leaves its key to the next."""
    if film.idempotency_key is None:
        return None
    is_mine = sa.and_(
        films.c.force == film.principal.force,
        films.c.person_id == film.principal.person_id,
        films.c.idempotency_key == film.idempotency_key,
    )
    row = connection.execute(sa.select(films).where(is_mine)).one_or_none()
    if row is None:
        return None
    earlier = _stored(row)
    if (earlier.sha256, earlier.texts) != (film.sha256, film.texts):
        raise Conflict(
            "This Idempotency-Key was used for another film or form.",
            advice="Use a new key for a new request; the same key only to send the same request again.",
            code="idempotency_key_reused",
        )
    if earlier.status is not FilmStatus.FAILED:
        return earlier
    connection.execute(sa.update(films).where(is_mine).values(idempotency_key=None))
    return None


def _stored(row: sa.Row[Any]) -> StoredFilm:
    return StoredFilm(
        film_id=row.film_id,
        outcome_entry_id=row.outcome_entry_id,
        principal=Principal(row.person_id, row.force, frozenset(row.roles), frozenset()),
        texts={name: tuple(values) for name, values in row.texts.items()},
        case_reference=row.case_reference,
        purpose=row.purpose,
        watchlists=tuple(row.watchlists),
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        opened_at=_utc(row.opened_at),
        status=FilmStatus(row.status),
        pieces=tuple(row.pieces),
        description=row.description,
        segments_read=row.segments_read,
        frames_looked_at=row.frames_looked_at,
        warnings=tuple(row.warnings),
        read_s=row.read_s,
        failures=row.failures,
        problem=row.problem,
        is_closed=row.is_closed,
        idempotency_key=row.idempotency_key,
        retain_until=row.retain_until,
        erasure=row.erasure,
    )


def _track_row(film_id: str, track: FilmTrack) -> dict[str, Any]:
    return {
        "film_id": film_id,
        "track": track.track,
        "appearances": [list(appearance) for appearance in track.appearances],
        "frames_seen": track.frames_seen,
        "quality": track.quality,
    }


def _track(row: sa.Row[Any], stills: tuple[TrackStill, ...]) -> FilmTrack:
    appearances = tuple((float(start), float(end)) for start, end in row.appearances)
    return FilmTrack(row.track, appearances, row.frames_seen, row.quality, stills)


def _still_row(film_id: str, track: int, place: int, still: TrackStill) -> dict[str, Any]:
    return {
        "film_id": film_id,
        "track": track,
        "place": place,
        "frame_number": still.frame_number,
        "pts": still.pts,
        "time_s": still.time_s,
        "face": still.face,
        "quality": still.quality,
        "inter_eye_px": still.inter_eye_px,
        "sha256": still.sha256,
        "chip_jpeg": still.chip_jpeg,
    }


def _still(row: sa.Row[Any]) -> TrackStill:
    return TrackStill(
        frame_number=row.frame_number,
        pts=row.pts,
        time_s=row.time_s,
        face=row.face,
        quality=row.quality,
        inter_eye_px=row.inter_eye_px,
        sha256=row.sha256,
        chip_jpeg=bytes(row.chip_jpeg),
    )


def _utc(moment: datetime) -> datetime:
    """SQLite gives back what was stored without its zone, which is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
