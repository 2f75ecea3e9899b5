"""For a process whose PYTHONPATH begins with this folder: the time of day that it goes by is the machine's and as many
seconds as the file LIKENESS_TEST_CLOCK names says, from one moment to the next. What counts time that passes goes on.

The platform asks for the time of day in two places: its Clock, and the library that looks at a token's dates.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import jwt.api_jwt

import services.shared.clock

_FILE = Path(os.environ["LIKENESS_TEST_CLOCK"])


class SetClock(datetime):
    """`now` alone differs, and gives a plain datetime."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(seconds=int(_FILE.read_text("ascii")))


for module in (services.shared.clock, jwt.api_jwt):
    assert module.__dict__["datetime"] is datetime, f"{module.__name__} takes the time from somewhere else now"
    module.__dict__["datetime"] = SetClock
