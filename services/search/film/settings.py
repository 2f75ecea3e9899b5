"""Settings of films in search: LIKENESS_SEARCH__FILMS__…"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field


class FilmsSettings(BaseModel):
    """What one film may cost."""

    max_bytes: int = Field(default=8 * 1024**3, ge=1)
    # Uploads that are received at once; one more is refused before its body is read.
    max_uploads: int = Field(default=2, ge=1, le=8)
    # Where an upload lies until it is sealed; the system's folder for temporary files when not set.
    spool_path: Path | None = None
    # Reading one film, all attempts together. Then tracks are made of what was read, and the answer says so.
    max_read_s: float = Field(default=4 * 3600.0, gt=0)
    # A film of which people were searched is relevant material for so long; nothing is erased because a clock says so.
    retain_days: int = Field(default=90, ge=0, le=6 * 366)
    # Films up to this size are opened before the upload is answered, so that a broken one is refused at once.
    describe_bytes: int = Field(default=64 * 1024**2, ge=0)
    # A film that nobody tends for so long is taken up by whoever is there.
    claim_s: float = Field(default=10.0, ge=1, le=120)
    # Failures in a row, without a segment in between, that end a film; a peer that is away is waited for.
    max_failures: int = Field(default=5, ge=1)
