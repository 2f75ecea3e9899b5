"""How often kept probes are searched again."""

from __future__ import annotations

from pydantic import BaseModel, Field


class UnsolvedSettings(BaseModel):
    """`per_turn` probes' cases every `every_s` are the most that search is given to do by this."""

    # 0 switches it off: then operators search kept probes again by hand.
    every_s: float = Field(default=300.0, ge=0)
    per_turn: int = Field(default=20, ge=1, le=1000)
    # One case is looked at this often at most; where nothing was enrolled since, nothing is searched.
    case_every_h: float = Field(default=6.0, ge=0)
    # After a denial, which stands until somebody changes something.
    denied_every_h: float = Field(default=24.0, ge=0)
    # Between the moment at which the end of the authority is seen, from which on nothing is searched, and the erasure:
    # time for whoever set the clock wrong.
    erase_after_days: int = Field(default=1, ge=0, le=90)
