"""Looking at a film: how far it is, and the people in it; giving it up."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson

from services.rpc.v1 import audit_pb2
from services.search.film.ports import (
    TERMINAL,
    FilmContents,
    FilmStatus,
    FilmStore,
    FilmTrack,
    StoredFilm,
    TrackStill,
)
from services.search.film.trail import FILM_CANCEL, FILM_VIEW, FilmTrail
from services.search.policy import SEARCHING_ROLE
from services.shared.clock import rfc3339
from services.shared.errors import CallerError, Conflict, Forbidden, NotFound
from services.shared.ids import is_id, new_id
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal

_CANCELLED = {
    "code": "film_cancelled",
    "detail": "The film was given up; what had been read of it is erased.",
    "advice": "Send it again to have it read.",
}


class FilmAccess:
    """Films are seen by operators of the force that sent them who may see all of their watchlists, as searches are.

    What is not there, not yours and not permitted is one and the same answer, and recorded.
    """

    def __init__(self, store: FilmStore, trail: FilmTrail) -> None:
        self._store = store
        self._trail = trail

    def find(self, principal: Principal, film_id: str, activity: str) -> StoredFilm:
        """Raises Forbidden, NotFound, AuditUnavailable."""
        try:
            return self._permitted(principal, film_id)
        except CallerError as error:
            self._trail.refused(principal, activity, error, {}, film_id)
            raise

    def _permitted(self, principal: Principal, film_id: str) -> StoredFilm:
        if SEARCHING_ROLE not in principal.roles:
            raise Forbidden(f"Only the role {SEARCHING_ROLE} may see films.", advice="Ask your administrator.")
        film = self._store.find(film_id) if is_id(film_id) else None
        if film is None or film.principal.force != principal.force:
            raise _not_found()
        if not principal.watchlists.issuperset(film.watchlists):
            raise _not_found()
        return film


class ViewFilm:
    """Progress, and once the film is done its tracks. Faces are shown only after the look has been recorded; progress
    shows nobody and is not."""

    def __init__(self, access: FilmAccess, store: FilmStore, trail: FilmTrail) -> None:
        self._access = access
        self._store = store
        self._trail = trail

    def __call__(self, principal: Principal, film_id: str, *, with_chips: bool) -> bytes:
        """The JSON of the answer. Raises Forbidden, NotFound, AuditUnavailable."""
        film = self._access.find(principal, film_id, FILM_VIEW)
        contents = FilmContents()
        # Tracks whose outcome is not in the log yet are not given out.
        if film.status is FilmStatus.DONE:
            contents = self._store.contents(film_id)
            self._trail.viewed(principal, film, [track.track for track in contents.tracks])
        elif film.status is FilmStatus.ERASED:
            contents = self._store.contents(film_id)  # who picked whom; nobody is shown
        return orjson.dumps(film_document(film, contents, with_chips=with_chips))


class CancelFilm:
    """Gives a film up: it is read no further, and what was read of it is erased. The sealed original stays."""

    def __init__(self, access: FilmAccess, store: FilmStore, trail: FilmTrail, metrics: Metrics) -> None:
        self._metrics = metrics
        self._access = access
        self._store = store
        self._trail = trail

    def __call__(self, principal: Principal, film_id: str) -> bytes:
        """Raises Forbidden, NotFound, Conflict (it has ended already), AuditUnavailable."""
        film = self._access.find(principal, film_id, FILM_CANCEL)
        if film.status in TERMINAL:
            raise Conflict(f"The film is {film.status.value}.", advice="Nothing is to be given up.", code="film_ended")
        activity_id = new_id()
        self._trail.cancel(principal, film, activity_id, audit_pb2.INTENT)
        if not self._store.stop(film_id, FilmStatus.CANCELLED, {**_CANCELLED, "cancelled_by": principal.person_id}):
            self._trail.cancel(principal, film, activity_id, audit_pb2.FAILED)
            raise Conflict("The film has just ended.", advice="Look at it again.", code="film_ended")
        self._metrics.search_films_total.labels(FilmStatus.CANCELLED.value).inc()
        self._trail.cancel(principal, film, activity_id, audit_pb2.DONE)
        with suppress(Conflict):  # it was done at this very moment, which the log has first; it is erased all the same
            self._trail.ended(film, audit_pb2.FAILED, "film_cancelled")
        self._store.close(film_id)
        return orjson.dumps({"film_id": film_id, "status": FilmStatus.CANCELLED.value})


def film_document(film: StoredFilm, contents: FilmContents, *, with_chips: bool) -> dict[str, Any]:
    description = dict(film.description or {})
    model = description.pop("model", None)
    segments = description.pop("segments", None)
    is_read = film.status in {FilmStatus.CHOOSING, FilmStatus.CLOSING, FilmStatus.DONE}
    return {
        "film_id": film.film_id,
        "status": film.status.value,
        "opened_at": rfc3339(film.opened_at),
        "opened_by": film.principal.person_id,
        "request": {name: values[0] if name != "watchlists" else list(values) for name, values in film.texts.items()},
        "film": {"sha256": film.sha256, "size_bytes": film.size_bytes, **description},
        "progress": {
            "segments": segments,
            "segments_read": film.segments_read,
            "share": 1.0 if is_read else round(film.segments_read / segments, 4) if segments else 0.0,
            "frames_looked_at": film.frames_looked_at,
            "read_s": round(film.read_s, 1),
        },
        "is_whole": not film.warnings,
        "warnings": list(film.warnings),
        "model": model,
        "tracks": [_track_document(track, with_chips=with_chips) for track in contents.tracks],
        "searches": [
            {
                "track": pick.track,
                "search_id": pick.search_id,
                "picked_by": pick.person_id,
                "picked_at": rfc3339(pick.picked_at),
            }
            for pick in contents.picks
        ],
        "retain_until": None if film.retain_until is None else film.retain_until.isoformat(),
        "erasure": film.erasure,
        "problem": film.problem,
    }


def _track_document(track: FilmTrack, *, with_chips: bool) -> dict[str, Any]:
    return {
        "track": track.track,
        "appearances": [{"from_s": _s(start), "until_s": _s(end)} for start, end in track.appearances],
        "frames_seen": track.frames_seen,
        "quality": round(track.quality, 1),
        "stills": _still_documents(track.stills, with_chips=with_chips),
    }


def _still_documents(stills: Sequence[TrackStill], *, with_chips: bool) -> list[dict[str, Any]]:
    return [
        {
            "frame_number": still.frame_number,
            "pts": still.pts,
            "time_s": _s(still.time_s),
            "face": still.face,
            "quality": round(still.quality, 1),
            "inter_eye_px": round(still.inter_eye_px, 1),
            "still_sha256": still.sha256,
            **({"chip_jpeg_base64": base64.b64encode(still.chip_jpeg).decode()} if with_chips else {}),
        }
        for still in stills
    ]


def _s(seconds: float) -> float:
    return round(seconds, 3)


def _not_found() -> NotFound:
    return NotFound("There is no such film.", advice="Check the film_id.")
