"""Films that are kept, and their erasure, over REST."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from services.search.film.api_models import ErasureReason, FilmErased, ListedFilms
from services.search.film.erasing import EraseFilm, ListFilms
from services.shared.http import bearer
from services.shared.tokens import Principal, TokenVerifier

_JSON = "application/json"


def create_retention_router(erase: EraseFilm, list_films: ListFilms, verifier: TokenVerifier) -> APIRouter:
    """`GET /v1/films`, `POST /v1/films/{film_id}/erasure`."""
    router = APIRouter(prefix="/v1/films", tags=["films"])
    caller = bearer(verifier)

    @router.get("", summary="The films that are kept", response_model=ListedFilms)
    def listed(principal: Annotated[Principal, Depends(caller)]) -> Response:
        """Those of your force whose watchlists you may see, and which may be erased. Nobody in them is shown."""
        return Response(list_films(principal), media_type=_JSON)

    @router.post("/{film_id}/erasure", summary="Erase a film that has ended", response_model=FilmErased)
    def erasure(principal: Annotated[Principal, Depends(caller)], film_id: str, why: ErasureReason) -> Response:
        """Erases the sealed film, its frames and tracks; recorded before and after. Frames that were searched stay with
        their searches. A film of which people were searched is retained until its day."""
        return Response(erase(principal, film_id, why.reason), media_type=_JSON)

    return router
