"""What scores are worth, out of an evaluation: the form that search loads and shows beside every candidate.

Every search of every condition, with its own subject left out of the list, is a search for somebody who is not
enrolled. They are parted by the quality of the probe and counted at each hundredth of a score. Searches of one person,
worse versions of one picture among them, fail together: the limits are of whole people drawn with replacement.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from services.local.evaluation.metrics import NonMatedSearches, shares
from services.local.evaluation.records import ProbeResult, Run
from services.search.identification.calibration import MIN_PEOPLE, MIN_REACHED

# The cuts between the grades of a probe: unsuitable, with caution, suitable.
BAND_STARTS = (0, 40, 60)
_SCORES = np.round(np.arange(0.10, 1.0, 0.01), 2)


def calibration_document(
    runs: Sequence[Run], *, model_id: str, watchlist: str, enrolled: int, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """One calibration of search's operating points file. The version names the content."""
    entry: dict[str, Any] = {
        "model_id": model_id,
        "watchlist": watchlist,
        "enrolled": enrolled,
        "evidence": {
            "reference": f"likeness evaluate, {facts['measured_on']}, manifest SHA-256 {facts['manifest_sha256']}",
            "conditions": [run.condition for run in runs],
            "interval": "95 %, people drawn with replacement",
            **facts,
        },
        "bands": [_band(start, part) for start, part in zip(BAND_STARTS, bands_of(runs), strict=True)],
    }
    digest = hashlib.sha256(orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)).hexdigest()
    entry["version"] = f"evaluate-{str(facts['measured_on'])[:10]}-{digest[:12]}"
    return entry


def bands_of(runs: Sequence[Run]) -> list[NonMatedSearches]:
    """The non-mated searches of each band. A probe without a face has no quality and asks the gallery nothing."""
    return [_part(runs, start, end) for start, end in zip(BAND_STARTS, (*BAND_STARTS[1:], math.inf), strict=True)]


def _part(runs: Sequence[Run], start: float, end: float) -> NonMatedSearches:
    def is_in(one: ProbeResult) -> bool:
        return one.quality is not None and start <= one.quality < end

    found = [run.where(is_in).non_mated_leaving_one_out() for run in runs]
    scores, clusters = (part.scores for part in found), (part.clusters for part in found)
    return NonMatedSearches(np.concatenate([*scores]), np.concatenate([*clusters]))


def _band(start: float, part: NonMatedSearches) -> dict[str, Any]:
    people = len(np.unique(part.clusters))
    rows = _rows(part) if people >= MIN_PEOPLE else []
    return {"from_quality": start, "searches": len(part), "people": people, "rows": rows}


def _rows(part: NonMatedSearches) -> list[dict[str, Any]]:
    """Up to the first score that nobody reached: what holds there holds beyond."""
    is_reached = part.scores[:, None] >= _SCORES[None, :]
    reached = is_reached.sum(axis=0)
    last = int(np.argmax(reached == 0)) if (reached == 0).any() else len(_SCORES) - 1
    is_reached, reached = is_reached[:, : last + 1], reached[: last + 1]
    rates = shares(is_reached, part.clusters)
    low = np.array([0.0 if rate.hits < MIN_REACHED else rate.low for rate in rates])
    high = np.array([rate.high for rate in rates])
    # Who reaches a score reaches all below it: so do the limits.
    low, high = np.minimum.accumulate(low), np.maximum.accumulate(high[::-1])[::-1]
    return [
        {
            "score": float(_SCORES[place]),
            "reached": int(count),
            "low": round(float(low[place]), 6),
            "high": round(float(high[place]), 6),
        }
        for place, count in enumerate(reached)
    ]
