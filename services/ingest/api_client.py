"""The enrolment service as command lines call it."""

from __future__ import annotations

from pathlib import Path

import httpx

from services.shared.rest_client import RestClient

# A reconciliation of the whole gallery answers when it is done.
_TIMEOUT = httpx.Timeout(30.0, read=900.0)


class IngestApi(RestClient):
    """One address and one token; see RestClient for what it raises."""

    def __init__(self, url: str, token: Path) -> None:
        super().__init__("ingest", url, token, timeout=_TIMEOUT)
