"""Films through the REST API of search, with the operator's own token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import httpx

from services.shared.errors import (
    Conflict,
    DependencyUnavailable,
    Forbidden,
    InvalidRequest,
    LikenessError,
    NotFound,
    Overloaded,
    Unauthenticated,
    error_from_code,
)

# Between two bytes, not for the whole film; search answers within ten seconds of the last one.
_TIMEOUT = httpx.Timeout(30.0, connect=3.0)
_KINDS: Mapping[int, type[LikenessError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    429: Overloaded,
    503: DependencyUnavailable,
}


class HttpFilmReader:
    """FilmReader over HTTP."""

    def __init__(self, search_url: str) -> None:
        self._client = httpx.Client(base_url=search_url, timeout=_TIMEOUT, trust_env=False, follow_redirects=False)

    def hand_in(self, bearer: str, form: Mapping[str, str | list[str]], film: IO[bytes], key: str) -> str:
        headers = {**_headers(bearer), "Idempotency-Key": key}
        with _translated():
            answer = self._client.post("/v1/films", data=dict(form), files={"film": ("film", film)}, headers=headers)
            return str(_checked(answer).json()["film_id"])

    def see(self, bearer: str, reading_id: str, *, with_chips: bool) -> Mapping[str, Any]:
        with _translated():
            answer = self._client.get(
                f"/v1/films/{reading_id}", params={"chips": str(with_chips).lower()}, headers=_headers(bearer)
            )
            document: Mapping[str, Any] = _checked(answer).json()
            return document

    def still(self, bearer: str, reading_id: str, sha256: str) -> bytes:
        with _translated():
            answer = self._client.get(f"/v1/films/{reading_id}/stills/{sha256}", headers=_headers(bearer))
            return _checked(answer).content

    def close(self) -> None:
        self._client.close()


def _headers(bearer: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {bearer}"}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise DependencyUnavailable(
            "search, which reads films, does not answer.", advice="Try again in a few seconds."
        ) from error


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    body: dict[str, Any] = answer.json()
    code, detail, advice = (str(body.get(name, "")) for name in ("code", "detail", "advice"))
    context: dict[str, Any] = {name: body[name] for name in ("reasons", "fields") if name in body}
    kind = _KINDS.get(answer.status_code, DependencyUnavailable)
    raise error_from_code(code, detail, advice, context) or kind(detail, advice=advice, code=code)
