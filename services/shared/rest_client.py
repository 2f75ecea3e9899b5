"""A service's REST API as the command line calls it: one address, one person's token, errors in the service's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from services.shared.errors import ConfigurationError, DependencyUnavailable, LikenessError, error_from_code

TIMEOUT_S = 60.0


class RestClient:
    """Calls `service` at `url` with the token that stands in a file.

    Raises what the service answers with, of the one error tree and with the problems of single fields;
    ConfigurationError for a token file that cannot be read; DependencyUnavailable when nothing answers there, or
    something that is no service of Likeness.
    """

    def __init__(self, service: str, url: str, token: Path, *, timeout: httpx.Timeout | float = TIMEOUT_S) -> None:
        self._service = service
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {read_token(token)}"},
            timeout=timeout,
            trust_env=False,  # a platform of the force is not behind a proxy to the internet
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """The successful answer to one request; `sent` as httpx takes it (`json`, `params`, ...)."""
        try:
            answer = self._http.request(method, self._url + path, **sent)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise unreachable(self._service, self._url, error) from error
        if not answer.is_success:
            raise error_of(answer)
        return answer

    @contextmanager
    def streamed(self, method: str, path: str, **sent: Any) -> Iterator[httpx.Response]:
        """A successful answer whose body is read while it arrives: `iter_bytes` raises httpx.HTTPError."""
        with ExitStack() as stack:
            try:
                answer = stack.enter_context(self._http.stream(method, self._url + path, **sent))
                if not answer.is_success:
                    answer.read()
            except (httpx.TransportError, httpx.InvalidURL) as error:
                raise unreachable(self._service, self._url, error) from error
            if not answer.is_success:
                raise error_of(answer)
            yield answer

    def json(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        """The object in the successful answer to one request."""
        return object_in(self.call(method, path, **sent))


def read_token(path: Path) -> str:
    """Raises ConfigurationError when the file is not there, or holds what is no token."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The token file {path} cannot be read: {getattr(error, 'strerror', None) or 'it holds no token'}.",
            advice="Give it with --token FILE; `likeness up` writes one for each role to DATA/tokens/.",
        ) from error


def unreachable(service: str, url: str, error: Exception) -> DependencyUnavailable:
    """What to raise when a request did not come through."""
    return DependencyUnavailable(
        f"{service} does not answer at {url}: {error}", advice="Start it with `likeness up`, or give --url."
    )


def object_in(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object that an answer consists of. Raises DependencyUnavailable."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise DependencyUnavailable(
            f"The answer ({answer.status_code}) is not Likeness's.", advice="Check the address given with --url."
        )
    return body


def error_of(answer: httpx.Response) -> LikenessError:
    """What a service refused with, of the error tree where it knows the code. Raises DependencyUnavailable."""
    return error_in(object_in(answer))


def error_in(problem: dict[str, Any]) -> LikenessError:
    """The error that a `problem+json` object tells of, with the problem of each field."""
    code, detail, advice = (str(problem.get(name, "")) for name in ("code", "detail", "advice"))
    detail += "".join(f"\n  {entry.get('field')}: {entry.get('problem')}" for entry in problem.get("fields", []))
    return error_from_code(code, detail, advice) or LikenessError(detail, advice=advice, code=code)
