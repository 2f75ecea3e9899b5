"""Who holds which sealed probe, by the record of searches: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import orjson
import sqlalchemy as sa

from services.search.adapters.schema import searches
from services.search.film.ports import FilmStatus
from services.search.film.schema import film_picks, film_stills, films
from services.search.ports import SearchStatus
from services.search.probes.erasing import Sealed
from services.shared.database import transaction

_COLUMNS = (
    searches.c.search_id,
    searches.c.force,
    searches.c.case_reference,
    searches.c.status,
    searches.c.is_closed,
    searches.c.probe_sha256,
    searches.c.probe_erased_at,
    searches.c.result,
)


class SqlSealedProbes:
    """SealedProbes on one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def held(self, force: str, case_reference: str, sha256s: Sequence[str]) -> Sealed:
        with self._transaction() as connection:
            rows = connection.execute(sa.select(*_COLUMNS).where(searches.c.probe_sha256.in_(sha256s))).all()
            of_case = [row for row in rows if (row.force, row.case_reference) == (force, case_reference)]
            others = {row.probe_sha256 for row in rows if row not in of_case and row.probe_erased_at is None}
            ours = [row for row in of_case if row.probe_sha256 not in others]
            names = {row.probe_sha256 for row in ours}.union(*(_frames(row.result) for row in ours))
            names -= _needed_by_films(connection, names)
            names -= _needed_by_picks(connection, names, [row.search_id for row in ours])
        is_running = any(row.status == SearchStatus.OPEN.value and not row.is_closed for row in ours)
        return Sealed([row.search_id for row in ours if row.probe_erased_at is None], sorted(names), is_running)

    def unmarked(self, search_ids: Sequence[str]) -> Sequence[str]:
        query = sa.select(searches.c.search_id).where(
            searches.c.search_id.in_(search_ids), searches.c.probe_erased_at.is_(None)
        )
        with self._transaction() as connection:
            return list(connection.execute(query).scalars())

    def mark_erased(self, search_ids: Sequence[str], at: datetime) -> None:
        with self._transaction() as connection:
            connection.execute(
                sa.update(searches)
                .where(searches.c.search_id.in_(search_ids), searches.c.probe_erased_at.is_(None))
                .values(probe_erased_at=at.astimezone(UTC))
            )

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The record of searches cannot be used.", "search")


def _frames(result: bytes | None) -> set[str]:
    """All stills that a search was made with; its probe is the first of them."""
    film = orjson.loads(result or b"{}").get("film") or {}
    return {frame["still_sha256"] for frame in film.get("frames", ())}


def _needed_by_films(connection: sa.Connection, names: Collection[str]) -> set[str]:
    """Stills of films that are kept: they go with their film."""
    query = (
        sa.select(film_stills.c.sha256)
        .join(films, films.c.film_id == film_stills.c.film_id)
        .where(film_stills.c.sha256.in_(names), films.c.status != FilmStatus.ERASED.value)
    )
    return {*connection.execute(query).scalars()}


def _needed_by_picks(connection: sa.Connection, names: Collection[str], ours: Collection[str]) -> set[str]:
    """Stills that a search of another case, or another face of the same picture, was made with."""
    query = (
        sa.select(*_COLUMNS)
        .join(film_picks, film_picks.c.search_id == searches.c.search_id)
        .where(searches.c.search_id.not_in(ours), searches.c.probe_erased_at.is_(None))
    )
    picked = (
        [_frames(row.result) for row in connection.execute(query)]
        if len(names) and _are_picked(connection, ours)
        else []
    )
    return set(names).intersection(set().union(*picked))


def _are_picked(connection: sa.Connection, search_ids: Collection[str]) -> bool:
    query = sa.select(film_picks.c.search_id).where(film_picks.c.search_id.in_(search_ids)).limit(1)
    return connection.execute(query).one_or_none() is not None
