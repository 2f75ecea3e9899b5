"""How much shadow searches may take."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ShadowSettings(BaseModel):
    """How much of a candidate's embed shadow searches may take."""

    model_config = ConfigDict(extra="forbid")

    at_most_per_s: float = Field(default=1.0, gt=0, le=100)
    # Answered searches that wait, with their probes in memory; what comes beyond is not repeated, but counted.
    waiting: int = Field(default=4, ge=1, le=64)
