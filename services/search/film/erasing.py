"""Erasing a film that has ended, with its frames; and which films there are to erase."""

from __future__ import annotations

from datetime import date
from typing import Any

import orjson

from services.rpc.v1 import audit_pb2
from services.search.film.ports import TERMINAL, FilmStatus, FilmStore, StoredFilm
from services.search.film.trail import FILM_ERASE, FilmTrail
from services.search.film.view import FilmAccess
from services.search.policy import SEARCHING_ROLE
from services.shared.clock import Clock, rfc3339
from services.shared.errors import Conflict, Forbidden, InvalidRequest, LikenessError
from services.shared.ids import new_id
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal


class EraseFilm:
    """Erases the sealed film, its frames, chips and tracks. A person does it, with a reason; no clock does.

    A film of which people were searched is relevant material until its `retain_until`; any other may go at once. What
    was searched stays: the frames of a track that was picked are the probes of its search, which the disclosure and the
    replay of that search need. That a film was there, whose it was and who picked whom stays as well.
    """

    def __init__(
        self, access: FilmAccess, store: FilmStore, probes: ImageStore, trail: FilmTrail, clock: Clock
    ) -> None:
        self._access = access
        self._store = store
        self._probes = probes
        self._trail = trail
        self._clock = clock

    def __call__(self, principal: Principal, film_id: str, reason: str) -> bytes:
        """The JSON of the answer. Raises Forbidden, NotFound, InvalidRequest, Conflict (`film_not_ended`,
        `retention_not_due`, `erased`), AuditUnavailable, DependencyUnavailable: then doing it again goes on."""
        film = self._access.find(principal, film_id, FILM_ERASE)
        told = _reason(reason)
        now = self._clock.now()
        self._require_due(film, now.date())
        activity_id = new_id()
        self._trail.erase(principal, film, activity_id, audit_pb2.INTENT, reason=told)
        try:
            erasure = {"erased_by": principal.person_id, "erased_at": rfc3339(now), "reason": told}
            # The record first: nobody is shown what is about to go, and a failure leaves a list of what is left.
            images = self._store.erase(film_id, erasure)
            for sha256 in images:
                self._probes.remove(sha256)
            self._store.removed(film_id)
        except LikenessError:
            self._trail.erase(principal, film, activity_id, audit_pb2.FAILED, reason=told)
            raise
        self._trail.erase(principal, film, activity_id, audit_pb2.DONE, reason=told, images=images)
        return orjson.dumps({"film_id": film_id, "status": FilmStatus.ERASED.value, "removed": len(images)})

    def _require_due(self, film: StoredFilm, today: date) -> None:
        if film.status not in TERMINAL or not film.is_closed:
            raise Conflict(
                f"The film is {film.status.value}.", advice="Give it up first, or wait for it.", code="film_not_ended"
            )
        if film.status is FilmStatus.ERASED and not film.pieces:
            raise Conflict("The film is erased already.", advice="Nothing is left to do.", code="erased")
        until = film.retain_until
        if until is not None and today < until and self._store.contents(film.film_id).picks:
            raise Conflict(
                f"People of the film were searched: it is retained until {until}.",
                advice="It is relevant material until then.",
                code="retention_not_due",
            )


class ListFilms:
    """The films of the caller's force that they may see, nobody in them shown; so it is not recorded."""

    def __init__(self, store: FilmStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def __call__(self, principal: Principal) -> bytes:
        """JSON. Raises Forbidden, DependencyUnavailable."""
        if SEARCHING_ROLE not in principal.roles:
            raise Forbidden(f"Only the role {SEARCHING_ROLE} may see films.", advice="Ask your administrator.")
        today = self._clock.now().date()
        films = [
            film for film in self._store.listed(principal.force) if principal.watchlists.issuperset(film.watchlists)
        ]
        return orjson.dumps({"films": [_listed(film, today) for film in films]})


def _listed(film: StoredFilm, today: date) -> dict[str, Any]:
    return {
        "film_id": film.film_id,
        "status": film.status.value,
        "case_reference": film.case_reference,
        "sha256": film.sha256,
        "size_bytes": film.size_bytes,
        "opened_at": rfc3339(film.opened_at),
        "opened_by": film.principal.person_id,
        "retain_until": None if film.retain_until is None else film.retain_until.isoformat(),
        "is_due": film.status in TERMINAL and (film.retain_until is None or film.retain_until <= today),
    }


def _reason(text: str) -> str:
    told = " ".join(text.split())
    if not told or not told.isprintable():
        raise InvalidRequest(
            "Missing or invalid: reason.",
            advice="Say why the film is erased.",
            context={"fields": [{"field": "reason", "problem": "Required, printable."}]},
        )
    return told
