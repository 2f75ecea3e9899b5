"""Settings of the reading of films: LIKENESS_EMBED__FILM__…"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field


class FilmSettings(BaseModel):
    """The limits under which untrusted films are read."""

    # Films that are read at once; the next is told to come again.
    max_running: int = Field(default=1, ge=1, le=8)
    # Frames of one film that are looked at at once. Each takes a place among the networks that searches wait for too.
    parallel: int = Field(default=2, ge=1, le=16)
    max_bytes: int = Field(default=8 * 1024**3, ge=1)
    max_pixels: int = Field(default=40_000_000, ge=1)
    # Two days at 25 frames a second; what comes after is not read, and said so.
    max_frames: int = Field(default=4_400_000, ge=1)
    # Of the processor: for the list of frames, and for any one frame with all that it is predicted from.
    index_cpu_s: float = Field(default=120.0, gt=0)
    frame_cpu_s: float = Field(default=30.0, gt=0)
    memory_bytes: int = 1024**3
    # Where the film lies, without a name, while it is read; the system's folder for temporary files when not set.
    spool_path: Path | None = None
