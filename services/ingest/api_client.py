"""The enrolment service as command lines call it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from services.shared.errors import DependencyUnavailable, LikenessError, Unauthenticated

_TIMEOUT = httpx.Timeout(30.0, read=900.0)


class IngestApi:
    """One address and one token. Errors of the service are raised as LikenessError in its own words."""

    def __init__(self, url: str, token: Path) -> None:
        try:
            bearer = token.read_text("utf-8").strip()
        except OSError as error:
            raise Unauthenticated(
                f"The token file {token} cannot be read: {error.strerror}.",
                advice="Give --token FILE; `likeness up` writes DATA/tokens/custodian.token.",
            ) from error
        headers = {"Authorization": f"Bearer {bearer}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False)

    def call(self, method: str, path: str, **body: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **body)
        except httpx.TransportError as error:
            raise DependencyUnavailable(
                f"{self._http.base_url} does not answer ({type(error).__name__}).", advice="Start the platform."
            ) from error
        if answer.is_error:
            problem = _problem(answer)
            raise LikenessError(str(problem.get("detail", answer.text[:200])), advice=str(problem.get("advice", "")))
        return answer

    def json(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.call(method, path, **body).json()
        return found


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
