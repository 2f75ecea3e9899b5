"""Searching people of a film: one search a track, through the use case of every search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from services.search.film.ports import FilmStatus, FilmStore, FilmTrack, Pick, StoredFilm
from services.search.film.trail import FILM_VIEW
from services.search.film.view import FilmAccess
from services.search.identification.evidence import FilmEvidence, Still
from services.search.identification.identify import Identify
from services.search.identification.requests import ImageNature
from services.shared.clock import Clock
from services.shared.errors import CallerError, Conflict, InvalidRequest, NotFound
from services.shared.multipart import Upload
from services.shared.ports.image_store import ImageStore
from services.shared.problems import problem_body
from services.shared.tokens import Principal

MAX_PICKS = 20


class SearchTracks:
    """Makes a search of each picked track. Policy, audit, answer and disclosure are those of any search; the probe is
    the track's best still, and the scores are fused over its stills (services/search/identification/evidence.py). Who
    picked is the caller, and is kept with the film and in every search's log entries."""

    def __init__(
        self, access: FilmAccess, store: FilmStore, identify: Identify, probes: ImageStore, clock: Clock
    ) -> None:
        self._access = access
        self._store = store
        self._identify = identify
        self._probes = probes
        self._clock = clock

    def __call__(
        self, principal: Principal, film_id: str, tracks: Sequence[int], idempotency_key: str | None = None
    ) -> bytes:
        """The JSON of one answer or problem for each track, in their order: what one search is refused for does not
        take the others' answers away. Raises Forbidden, NotFound, Conflict (not read yet), InvalidRequest, and every
        error of a search that is not the caller's fault."""
        film = self._access.find(principal, film_id, FILM_VIEW)
        if film.status is not FilmStatus.DONE:
            raise Conflict(
                f"The film is {film.status.value}: its tracks are not there.",
                advice="Wait until it is done.",
                code="film_not_done",
            )
        by_number = {track.track: track for track in self._store.contents(film_id).tracks}
        chosen = _chosen(tracks, by_number)
        answers = [self._search(principal, film, track, idempotency_key) for track in chosen]
        return orjson.dumps({"film_id": film_id, "searches": answers})

    def _search(self, principal: Principal, film: StoredFilm, track: FilmTrack, key: str | None) -> dict[str, Any]:
        evidence = self._evidence(film, track)
        best = evidence.stills[0]
        texts = {name: tuple(values) for name, values in film.texts.items()}
        # A still of a film is a frame of it, unless whoever handed the film in knows that it shows something else.
        upload = Upload(
            {"nature": (ImageNature.VIDEO_FRAME.value,), **texts, "face": (str(best.face),)}, {"image": (best.content,)}
        )
        try:
            answer = self._identify(principal, upload, None if key is None else f"{key}:{track.track}", evidence)
        except CallerError as error:
            problem = problem_body(error.code, error.http_status, error.detail, error.advice, error.context)
            return {"track": track.track, "status": "refused", "answer": None, "problem": problem}
        found = orjson.loads(answer)
        pick = Pick(track.track, found["search_id"], principal.person_id, self._clock.now())
        self._store.add_pick(film.film_id, pick)
        return {"track": track.track, "status": "done", "answer": found, "problem": None}

    def _evidence(self, film: StoredFilm, track: FilmTrack) -> FilmEvidence:
        stills = tuple(
            Still(
                sha256=still.sha256,
                content=self._probes.get(still.sha256),
                face=still.face,
                frame_number=still.frame_number,
                pts=still.pts,
                time_s=still.time_s,
            )
            for still in track.stills
        )
        return FilmEvidence(film.film_id, film.sha256, track.track, stills)


def _chosen(tracks: Sequence[int], by_number: dict[int, FilmTrack]) -> list[FilmTrack]:
    if not 1 <= len(tracks) <= MAX_PICKS or len(set(tracks)) != len(tracks):
        raise InvalidRequest(
            f"Missing or invalid: tracks. From 1 to {MAX_PICKS}, each once.",
            advice="Send the numbers of the tracks to search.",
            context={"fields": [{"field": "tracks", "problem": f"From 1 to {MAX_PICKS} numbers, each once."}]},
        )
    missing = [number for number in tracks if number not in by_number]
    if missing:
        raise NotFound(f"The film has no track {missing[0]}.", advice="The film's answer lists its tracks.")
    return [by_number[number] for number in tracks]
