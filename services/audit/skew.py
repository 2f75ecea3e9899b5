"""How far a writer's clock is from the log's. The order of entries is their sequence, whatever any clock says."""

from __future__ import annotations

from datetime import datetime
from math import inf

SKEW_S = 5.0


def skew_of(occurred_at: str, recorded_at: str) -> float:
    """Seconds by which what the writer says is after what the log says; both RFC 3339.

    Infinite for a time that there is not, which logs of earlier versions took and any file may hold: it ends nothing.
    """
    try:
        return _seconds(occurred_at, recorded_at)
    except ValueError:
        return inf


def _seconds(occurred_at: str, recorded_at: str) -> float:
    return (datetime.fromisoformat(occurred_at) - datetime.fromisoformat(recorded_at)).total_seconds()
