"""Searching people of a film: one search a track, through the use case of every search."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from services.search.film.ports import FilmStatus, FilmStore, FilmTrack, Pick, StoredFilm
from services.search.film.trail import FILM_VIEW
from services.search.film.view import FilmAccess
from services.search.identification.evidence import FilmEvidence, Still
from services.search.identification.requests import ImageNature
from services.shared.clock import Clock
from services.shared.errors import (
    AuditUnavailable,
    CallerError,
    Conflict,
    InvalidRequest,
    LikenessError,
    NotFound,
    PlatformError,
)
from services.shared.multipart import Upload
from services.shared.ports.image_store import ImageStore
from services.shared.problems import problem_body
from services.shared.tokens import Principal

MAX_PICKS = 20
# How long one request goes on trying what was refused for load, all its searches together, and after which pauses.
_TRY_FOR_S = 30.0
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)


class Identification(Protocol):
    """What is needed of `Identify`."""

    def __call__(
        self, principal: Principal, upload: Upload, idempotency_key: str | None, evidence: FilmEvidence | None
    ) -> bytes: ...

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None: ...


class SearchTracks:
    """Makes a search of each picked track. Policy, audit, answer and disclosure are those of any search; the probe is
    the track's best still, and the scores are fused over its stills (services/search/identification/evidence.py). Who
    picked is the caller, and is kept with the film and in every search's log entries."""

    def __init__(
        self,
        access: FilmAccess,
        store: FilmStore,
        identify: Identification,
        probes: ImageStore,
        clock: Clock,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`pause`: waits so many seconds."""
        self._access = access
        self._store = store
        self._identify = identify
        self._probes = probes
        self._clock = clock
        self._pause = pause

    def __call__(
        self, principal: Principal, film_id: str, tracks: Sequence[int], idempotency_key: str | None = None
    ) -> bytes:
        """The JSON of one answer or problem for each track, in their order: what one search is refused for does not
        take the others' answers away, nor does a platform that is too busy, which is tried again for a while. Raises
        Forbidden, NotFound, Conflict (not read yet), InvalidRequest, every fault of the platform that trying again
        does not mend, and any where no track was searched for it."""
        film = self._access.find(principal, film_id, FILM_VIEW)
        if film.status is not FilmStatus.DONE:
            raise Conflict(
                f"The film is {film.status.value}: its tracks are not there.",
                advice="Wait until it is done.",
                code="film_not_done",
            )
        by_number = {track.track: track for track in self._store.contents(film_id).tracks}
        chosen = _chosen(tracks, by_number)
        answers: list[dict[str, Any]] = []
        faults: list[PlatformError] = []
        without_log: AuditUnavailable | None = None  # nothing more is searched then: each would wait for it anew
        deadline_s = self._clock.monotonic_s() + _TRY_FOR_S
        for track in chosen:
            try:
                if without_log is not None:
                    raise without_log
                answers.append(self._search_patiently(principal, film, track, idempotency_key, deadline_s))
            except PlatformError as error:
                if not error.retriable:
                    raise
                without_log = error if isinstance(error, AuditUnavailable) else None
                faults.append(error)
                answers.append(_without_answer(track.track, "unavailable", error))
        if len(faults) == len(chosen):
            raise faults[0]
        return orjson.dumps({"film_id": film_id, "searches": [self._standing(principal, one) for one in answers]})

    def _standing(self, principal: Principal, told: dict[str, Any]) -> dict[str, Any]:
        """The first answers have waited for the last: what ended meanwhile is not given out."""
        if told["answer"] is None:
            return told
        try:
            self._identify.require_still(principal, told["answer"])
        except CallerError as error:
            return _without_answer(int(told["track"]), "refused", error)
        return told

    def _search_patiently(
        self, principal: Principal, film: StoredFilm, track: FilmTrack, key: str | None, deadline_s: float
    ) -> dict[str, Any]:
        """Again while the platform is busy, but not past the deadline. Without the log nothing is searched, and that is
        said at once."""
        for pause_s in _PAUSES_S:
            try:
                return self._search(principal, film, track, key)
            except PlatformError as error:
                is_hopeless = not error.retriable or isinstance(error, AuditUnavailable)
                if is_hopeless or self._clock.monotonic_s() + pause_s > deadline_s:
                    raise
                self._pause(pause_s)
        return self._search(principal, film, track, key)

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
            return _without_answer(track.track, "refused", error)
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


def _without_answer(track: int, status: str, error: LikenessError) -> dict[str, Any]:
    problem = problem_body(error.code, error.http_status, error.detail, error.advice, error.context)
    return {"track": track, "status": status, "answer": None, "problem": problem}


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
