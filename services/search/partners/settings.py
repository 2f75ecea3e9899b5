"""Where partners are described, and where their platforms call."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field


class PartnersSettings(BaseModel):
    """Off by default: without a file there are no partners, without a port nobody is answered."""

    # The file that docs/operations/partners.md describes; read again when it changes.
    path: Path | None = None
    # Where partners' platforms call, with mutual TLS and apart from the REST API.
    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65535)
    # How many questions of partners are answered at one time; more are refused at once.
    max_concurrent: int = Field(default=4, ge=1, le=16)
