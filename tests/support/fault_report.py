"""What the tests of faults measured, one JSON line a run, where LIKENESS_FAULTS_REPORT names a file.

`python -m tests.faults.table` sets it, runs the tests and writes docs/operations/faults.md.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "LIKENESS_FAULTS_REPORT"


@dataclass(frozen=True, slots=True)
class Tally:
    """Enrolments by what the client was told in the end. Judged: accepted = enrolled + refused + quarantined.
    Those that their owner took back since stand in a column of their own."""

    accepted: int
    enrolled: int
    refused: int
    quarantined: int
    withdrawn: int = 0


def record(
    row: str, fault: str, engines: str, *, recovery_s: float | None = None, tally: Tally | None = None, times: int = 1
) -> None:
    """Note one fault that was survived: the row (F6), what was done how often, on which engines, and the seconds from
    its end to the first request that was served again, where something was away."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = {
        "row": row,
        "fault": fault,
        "engines": engines,
        "times": times,
        "tally": None if tally is None else asdict(tally),
        "recovery_s": None if recovery_s is None else round(recovery_s, 1),
    }
    with Path(path).open("a", encoding="utf-8") as stream:  # one short line an append: whole beside other processes
        stream.write(json.dumps(line) + "\n")
