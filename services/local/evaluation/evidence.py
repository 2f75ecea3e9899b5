"""A threshold proposal with its evidence, in the form that search loads as a versioned operating point."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import orjson

from services.local.evaluation.metrics import MIN_EXPECTED_FALSE_POSITIVES, Rate, TpirAtFpir, tpir_at_fpir
from services.local.evaluation.records import Run
from services.local.evaluation.searching import LIST_LENGTH
from services.search.identification.calibration import LARGEST_FACTOR
from services.shared.errors import InvalidRequest


def fpir_as_measured(wished_fpir: float, enrolled: int, in_service: int) -> float:
    """The FPIR with `enrolled` that becomes the wished one with `in_service`
    (services/search/identification/calibration.py).

    Raises InvalidRequest where the two are further apart than the rule was tested.
    """
    factor = in_service / enrolled
    if not 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
        raise InvalidRequest(
            f"{enrolled:,} were enrolled; nothing is known of {in_service:,}.",
            advice=f"Enrol at least {math.ceil(in_service / LARGEST_FACTOR):,} for the measurement.",
        )
    return -math.expm1(math.log1p(-wished_fpir) / factor) if wished_fpir < 1 else 1.0


def propose_threshold(run: Run, wished_fpir: float) -> TpirAtFpir:
    """The lowest threshold that keeps the wished FPIR. Raises InvalidRequest where too few searches were made to say.

    A number made of too little evidence would be believed: there is none then.
    """
    point = tpir_at_fpir(run.mated(), run.non_mated_leaving_one_out(), wished_fpir, LIST_LENGTH)
    if point.threshold is None:
        searches = len(run.non_mated_leaving_one_out())
        needed = math.ceil(MIN_EXPECTED_FALSE_POSITIVES / wished_fpir)
        raise InvalidRequest(
            f"{searches} non-mated searches cannot tell a threshold for an FPIR of {wished_fpir:.2g} here.",
            advice=f"Search at least {needed} probes, or wish for a higher FPIR.",
        )
    return point


def operating_points_document(
    point: TpirAtFpir, *, model_id: str, watchlist: str, enrolled: int, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Format 1 of search's operating points file, with one point.

    The version names the content: another measurement, or another threshold, is another version.
    """
    if point.threshold is None or point.fpir is None or point.tpir is None:
        raise ValueError("no threshold was found")
    evidence = {
        "reference": f"likeness evaluate, {facts['measured_on']}, manifest SHA-256 {facts['manifest_sha256']}",
        "fpir": point.fpir.estimate,
        "fnir": 1 - point.tpir.estimate,
        "enrolled": enrolled,
        "searches": point.fpir.trials,
        "wished_fpir": point.wished_fpir,
        "fpir_interval_95": [point.fpir.low, point.fpir.high],
        "fnir_interval_95": _complement(point.tpir),
        "mated_searches": point.tpir.trials,
        "note": "FPIR grows with the number enrolled: measure again on a gallery of the size in service.",
        **facts,
    }
    entry = {
        "model_id": model_id,
        "watchlist": watchlist,
        # Rounded up, so that what it has to exclude stays excluded.
        "threshold": math.ceil(point.threshold * 1e6) / 1e6,
        "is_evidenced": True,
        "evidence": evidence,
    }
    digest = hashlib.sha256(orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)).hexdigest()
    entry["version"] = f"evaluate-{str(facts['measured_on'])[:10]}-{digest[:12]}"
    return {"format": 1, "operating_points": [entry]}


def _complement(rate: Rate) -> list[float]:
    return [1 - rate.high, 1 - rate.low]
