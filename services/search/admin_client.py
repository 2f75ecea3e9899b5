"""What administrators' commands share: the client of search's REST API, and how documents are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from services.shared.rest_client import RestClient

_TIMEOUT_S = 120.0


class AdminClient(RestClient):
    """One address and one token; see RestClient for what it raises."""

    def __init__(self, url: str, token: Path) -> None:
        super().__init__("search", url, token, timeout=_TIMEOUT_S)

    def get(self, path: str) -> dict[str, Any]:
        return self.json("GET", path)

    def post(self, path: str, body: Any) -> dict[str, Any]:
        return self.json("POST", path, json=body)


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
