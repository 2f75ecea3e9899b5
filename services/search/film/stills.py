"""A still of a film: the frame that a track is shown and searched by, whole and lossless."""

from __future__ import annotations

from services.search.film.ports import FilmStatus, FilmStore
from services.search.film.trail import FILM_VIEW, FilmTrail
from services.search.film.view import FilmAccess
from services.shared.errors import NotFound
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal


class ReadStill:
    """Gives a still out to those who may see the film, once the look is recorded."""

    def __init__(self, access: FilmAccess, store: FilmStore, probes: ImageStore, trail: FilmTrail) -> None:
        self._access = access
        self._store = store
        self._probes = probes
        self._trail = trail

    def __call__(self, principal: Principal, film_id: str, sha256: str) -> bytes:
        """The PNG whose digest a track names. Raises Forbidden, NotFound, IntegrityError, AuditUnavailable."""
        film = self._access.find(principal, film_id, FILM_VIEW)
        tracks = self._store.contents(film_id).tracks if film.status is FilmStatus.DONE else ()
        shown = [track.track for track in tracks if any(still.sha256 == sha256 for still in track.stills)]
        if not shown:
            raise NotFound("The film has no such still.", advice="Take the digest from one of its tracks.")
        self._trail.viewed(principal, film, shown)
        return self._probes.get(sha256)
