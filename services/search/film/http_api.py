"""The REST side of films: thin, all decisions are the use cases'."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from services.search.api_models import Problem
from services.search.film.api_models import (
    FILM_FORM,
    FilmAccepted,
    FilmAnswer,
    FilmCancelled,
    TrackChoice,
    TrackSearches,
)
from services.search.film.picks import SearchTracks
from services.search.film.settings import FilmsSettings
from services.search.film.stills import ReadStill
from services.search.film.submit import SubmitFilm
from services.search.film.upload import received
from services.search.film.view import CancelFilm, ViewFilm
from services.search.http_api import Slots
from services.shared.errors import CallerError, Overloaded
from services.shared.http import PROBLEM, bearer, within_limits
from services.shared.multipart import Upload
from services.shared.tokens import Principal, TokenVerifier

FILMS_PATH = "/v1/films"
MAX_FORM_BYTES = 1024 * 1024  # around the film

_JSON = "application/json"
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem: `detail` says what, `advice` what to do",
        "model": Problem,
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


class Uploads:
    """How many films are received at once."""

    def __init__(self, count: int) -> None:
        self._free = BoundedSemaphore(count)

    @contextmanager
    def taken(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise Overloaded("Enough films are being received.", advice="Try again when one has come.")
        try:
            yield
        finally:
            self._free.release()


def create_film_router(
    submit: SubmitFilm,
    view: ViewFilm,
    cancel: CancelFilm,
    search_tracks: SearchTracks,
    still: ReadStill,
    *,
    verifier: TokenVerifier,
    slots: Slots,
    settings: FilmsSettings,
) -> APIRouter:
    """`POST /v1/films`, `GET` and `DELETE /v1/films/{film_id}`, its stills, `POST /v1/films/{film_id}/searches`."""
    router = APIRouter(prefix=FILMS_PATH, tags=["films"], responses=_PROBLEMS)
    caller = bearer(verifier)
    uploads = Uploads(settings.max_uploads)

    async def limited(principal: Annotated[Principal, Depends(caller)]) -> None:
        if slots.limits is not None:
            await within_limits(slots.limits, principal)

    async def film(
        request: Request, _limited: Annotated[None, Depends(limited)]
    ) -> AsyncIterator[tuple[Upload, Path] | CallerError]:
        """The form and its film, or what is wrong with them: recording that blocks."""
        with uploads.taken():
            is_received = False
            try:
                async with received(request, settings) as read:
                    is_received = True
                    yield read
            except CallerError as error:
                if is_received:
                    raise
                yield error

    @router.post(
        "",
        summary="Hand in a film",
        status_code=202,
        response_model=FilmAccepted,
        openapi_extra={"requestBody": FILM_FORM},
    )
    def hand_in(
        principal: Annotated[Principal, Depends(caller)],
        read: Annotated[tuple[Upload, Path] | CallerError, Depends(film)],
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Seals a film and has its faces found and followed. The fields are those of a search, which counts for every
        search of one of its tracks. With the same `Idempotency-Key` again it is the same film."""
        if isinstance(read, CallerError):
            submit.reject(principal, read)
        return Response(submit(principal, *read, idempotency_key), status_code=202, media_type=_JSON)

    @router.get("/{film_id}", summary="See how far a film is, and who is in it", response_model=FilmAnswer)
    def see(
        principal: Annotated[Principal, Depends(caller)],
        film_id: str,
        chips: Annotated[bool, Query(description="With a small JPEG of each face.")] = False,
    ) -> Response:
        """Tracks are there once the status is `done`; seeing them is recorded."""
        return Response(view(principal, film_id, with_chips=chips), media_type=_JSON)

    @router.delete("/{film_id}", summary="Give a film up", response_model=FilmCancelled)
    def give_up(principal: Annotated[Principal, Depends(caller)], film_id: str) -> Response:
        """Reads it no further and erases what was read; the sealed original stays."""
        return Response(cancel(principal, film_id), media_type=_JSON)

    @router.get(
        "/{film_id}/stills/{sha256}",
        summary="A frame that a track is shown and searched by",
        responses={200: {"content": {"image/png": {}}, "description": "the whole frame, lossless"}},
    )
    def see_still(principal: Annotated[Principal, Depends(caller)], film_id: str, sha256: str) -> Response:
        """Recorded before it is given out."""
        headers = {"Content-Security-Policy": "sandbox", "Content-Disposition": 'attachment; filename="still.png"'}
        return Response(still(principal, film_id, sha256), media_type="image/png", headers=headers)

    _add_searching(router, search_tracks, slots, caller, limited)
    return router


def _add_searching(
    router: APIRouter,
    search_tracks: SearchTracks,
    slots: Slots,
    caller: Callable[..., Awaitable[Principal]],
    limited: Callable[..., Awaitable[None]],
) -> None:
    @router.post("/{film_id}/searches", summary="Search people of a film", response_model=TrackSearches)
    def search(
        principal: Annotated[Principal, Depends(caller)],
        _limited: Annotated[None, Depends(limited)],
        film_id: str,
        choice: TrackChoice,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Response:
        """One search for each picked track, as any search: the same policy, log entries, answer and disclosure. The
        probe is the track's best still, a score the mean of raw cosines over its stills; every frame is named."""
        with slots.taken():
            answer = search_tracks(principal, film_id, choice.tracks, idempotency_key)
        return Response(answer, media_type=_JSON)
