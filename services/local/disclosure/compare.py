"""Whether a search that was run again gave what it gave then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

# Scores are sums of float32 products; another order of rows or another processor moves the last digits.
SCORE_TOLERANCE = 1e-6


class Verdict(StrEnum):
    """SAME: list, order and scores. EXPLAINED: but for candidates that are gone since, each named. DIFFERS: else."""

    SAME = "same"
    EXPLAINED = "explained"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Comparison:
    """`largest_score_change` is over the candidates that both lists hold."""

    verdict: Verdict
    explanations: tuple[str, ...]
    differences: tuple[str, ...]
    largest_score_change: float


def compare(candidates: Sequence[Mapping[str, Any]], replay: Mapping[str, Any]) -> Comparison:
    """The list of a disclosure beside what a replay gave (POST /v1/searches/{id}/replay)."""
    gone = {one["reference_id"]: one for one in replay["gone"]}
    again: Sequence[Mapping[str, Any]] = replay["candidates"]
    expected = [one for one in candidates if one["reference_id"] not in gone]
    known = {one["reference_id"] for one in expected}
    kept = [one for one in again if one["reference_id"] in known]
    risen = [one for one in again if one["reference_id"] not in known]
    differences = [*_missing(expected, kept), *_changed(expected, kept), *_unexplained(candidates, gone, risen)]
    explanations = [
        f"rank {one['rank']}, reference {one['reference_id']}: {one['why'].replace('_', ' ')}"
        + (f" ({one['detail']})" if one.get("detail") else "")
        for one in gone.values()
    ]
    if risen and not differences:
        explanations.append(f"{len(risen)} candidates moved up into the places of those gone")
    verdict = Verdict.DIFFERS if differences else Verdict.EXPLAINED if gone else Verdict.SAME
    return Comparison(verdict, tuple(explanations), tuple(differences), _largest_change(expected, kept))


def _missing(expected: Sequence[Mapping[str, Any]], kept: Sequence[Mapping[str, Any]]) -> list[str]:
    found = {one["reference_id"] for one in kept}
    return [
        f"rank {one['rank']}, reference {one['reference_id']}, is not found again though it stands"
        for one in expected
        if one["reference_id"] not in found
    ]


def _changed(expected: Sequence[Mapping[str, Any]], kept: Sequence[Mapping[str, Any]]) -> list[str]:
    scores = {one["reference_id"]: float(one["score"]) for one in kept}
    changed = [
        f"rank {one['rank']}, reference {one['reference_id']}: score {one['score']:.9f} then, "
        f"{scores[one['reference_id']]:.9f} now"
        for one in expected
        if one["reference_id"] in scores and abs(scores[one["reference_id"]] - one["score"]) > SCORE_TOLERANCE
    ]
    then = {one["reference_id"]: float(one["score"]) for one in expected}
    for first, second in pairwise(kept):
        # Equal scores may stand either way round; anything else is another order.
        if then[first["reference_id"]] < then[second["reference_id"]] - SCORE_TOLERANCE:
            changed.append(f"{first['reference_id']} now stands before {second['reference_id']}")
    return changed


def _unexplained(
    candidates: Sequence[Mapping[str, Any]], gone: Mapping[str, Any], risen: Sequence[Mapping[str, Any]]
) -> list[str]:
    """New ones that neither fill the end of the list nor stand for a subject whose reference is gone."""
    subjects = {(one["owner"], one["subject_id"]) for one in candidates if one["reference_id"] in gone}
    last = min((float(one["score"]) for one in candidates), default=1.0)
    return [
        f"reference {one['reference_id']} is on the list now and was not then"
        for number, one in enumerate(risen)
        if (one["owner"], one["subject_id"]) not in subjects
        and (number >= len(gone) or float(one["score"]) > last + SCORE_TOLERANCE)
    ]


def _largest_change(expected: Sequence[Mapping[str, Any]], kept: Sequence[Mapping[str, Any]]) -> float:
    scores = {one["reference_id"]: float(one["score"]) for one in kept}
    return max(
        (abs(scores[one["reference_id"]] - one["score"]) for one in expected if one["reference_id"] in scores),
        default=0.0,
    )
