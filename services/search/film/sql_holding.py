"""Which images of the probe store a film alone holds."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.search.adapters.schema import searches
from services.search.film.ports import FilmStatus
from services.search.film.schema import film_picks, film_stills, films


def removable_images(connection: sa.Connection, film: sa.Row[Any]) -> list[str]:
    """The film's pieces and stills without those that anything else rests on: probes of searches, and all stills of a
    track that was searched, since its scores are fused over them, until their case is over; and whatever another
    film is made of."""
    names = {*film.pieces, *_stills(connection, film.film_id)}
    names -= _searched(connection, film.film_id)
    for other in connection.execute(
        sa.select(films.c.sha256, films.c.pieces).where(
            films.c.film_id != film.film_id, films.c.status != FilmStatus.ERASED.value
        )
    ):
        # One that is being sealed right now has not told its pieces yet.
        names -= {*other.pieces, *(film.pieces if other.sha256 == film.sha256 else ())}
    shared = sa.select(film_stills.c.sha256).where(film_stills.c.film_id != film.film_id)
    names -= {*connection.execute(shared).scalars()} if names else set()
    return sorted(names)


def _stills(connection: sa.Connection, film_id: str) -> set[str]:
    return {*connection.execute(sa.select(film_stills.c.sha256).where(film_stills.c.film_id == film_id)).scalars()}


def _searched(connection: sa.Connection, film_id: str) -> set[str]:
    """Stills of tracks that somebody picked; and where a still is the probe of a search that no pick accounts for (the
    service was killed in between), those of every track that it is in."""
    stills_of: dict[int, set[str]] = {}
    own = sa.select(film_stills.c.track, film_stills.c.sha256).where(film_stills.c.film_id == film_id)
    for track, sha256 in connection.execute(own):
        stills_of.setdefault(track, set()).add(sha256)
    has_probe = searches.c.probe_erased_at.is_(None)
    picked = sa.select(film_picks.c.track).join(searches, searches.c.search_id == film_picks.c.search_id, isouter=True)
    picks = connection.execute(picked.where(film_picks.c.film_id == film_id, has_probe)).scalars()
    kept = {sha256 for track in picks for sha256 in stills_of.get(track, ())}
    every = set().union(*stills_of.values())
    probed = sa.select(searches.c.probe_sha256).where(searches.c.probe_sha256.in_(every), has_probe)
    probes = connection.execute(probed).scalars()
    for probe in set(probes) - kept:
        kept = kept.union(*(stills for stills in stills_of.values() if probe in stills))
    return kept
