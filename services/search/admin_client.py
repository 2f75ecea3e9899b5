"""What administrators' commands share: one authenticated client of search's REST API."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from services.shared.errors import ConfigurationError, DependencyUnavailable, LikenessError, error_from_code

TIMEOUT_S = 120.0


class AdminClient:
    """Raises the error that search answers with; ConfigurationError, DependencyUnavailable."""

    def __init__(self, url: str, token_path: Path) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {_read_token(token_path)}"},
            timeout=TIMEOUT_S,
            trust_env=False,  # a platform of the force is not behind a proxy to the internet
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str) -> dict[str, Any]:
        return self._answer("GET", path, None)

    def post(self, path: str, body: Any) -> dict[str, Any]:
        return self._answer("POST", path, body)

    def _answer(self, method: str, path: str, body: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, self._url + path, json=body)
            answer = response.json()
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise DependencyUnavailable(
                f"search does not answer at {self._url}: {error}", advice="Start it with `likeness up`, or give --url."
            ) from error
        except ValueError as error:
            raise DependencyUnavailable(
                f"The answer ({response.status_code}) is not Likeness's.", advice="Check the address given with --url."
            ) from error
        if not response.is_success:
            code, detail, advice = (str(answer.get(name, "")) for name in ("code", "detail", "advice"))
            fields = "".join(f"\n  {entry.get('field')}: {entry.get('problem')}" for entry in answer.get("fields", []))
            known = error_from_code(code, detail + fields, advice)
            raise known or LikenessError(detail + fields, advice=advice, code=code)
        found: dict[str, Any] = answer
        return found


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def _read_token(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The token file {path} cannot be read: {error}",
            advice="Give --token FILE; `likeness up` writes one to <data>/tokens/administrator.token.",
        ) from error
