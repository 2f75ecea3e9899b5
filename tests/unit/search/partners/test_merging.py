"""Which lists are put into one order, and which are not."""

from __future__ import annotations

from typing import Any

import pytest

from services.search.partners.merging import merge, source_list

MODEL = {"model_id": "m1", "detector_sha256": "d", "recogniser_sha256": "r", "preprocessing_version": "p1"}
POINT = {"watchlist": "op_liberal", "value": 0.4, "version": "v1"}


def candidate(rank: int, score: float, subject: str = "S") -> dict[str, Any]:
    return {
        "rank": rank,
        "subject_id": f"{subject}-{rank}",
        "reference_id": f"R-{subject}-{rank}",
        "watchlist": "op_liberal",
        "owner": "northshire",
        "score": score,
    }


def test_equal_models_and_points_make_one_order_and_keep_both_ranks() -> None:
    home = source_list("north", MODEL, "investigation", [], [candidate(1, 0.9), candidate(2, 0.3)])
    theirs = source_list("east", MODEL, "investigation", [], [candidate(1, 0.9, "E"), candidate(2, 0.5, "E")])
    [merged] = merge([home, theirs])
    assert merged["is_merged"]
    assert merged["sources"] == ["north", "east"]
    order = [(one["rank"], one["source"], one["source_rank"], one["score"]) for one in merged["candidates"]]
    # Of equal scores the source that was named first.
    assert order == [(1, "north", 1, 0.9), (2, "east", 1, 0.9), (3, "east", 2, 0.5), (4, "north", 2, 0.3)]


@pytest.mark.parametrize("name", ["model_id", "detector_sha256", "recogniser_sha256", "preprocessing_version"])
def test_any_difference_of_the_models_keeps_lists_apart(name: str) -> None:
    home = source_list("north", MODEL, "investigation", [], [candidate(1, 0.2)])
    theirs = source_list("east", {**MODEL, name: "other"}, "investigation", [], [candidate(1, 0.99, "E")])
    first, second = merge([home, theirs])
    assert (first["sources"], second["sources"]) == (["north"], ["east"])
    assert not first["is_merged"]
    # The lower score of the other model's list takes nobody's place.
    assert [one["rank"] for one in (*first["candidates"], *second["candidates"])] == [1, 1]


@pytest.mark.parametrize(
    "points",
    [[], [{**POINT, "value": 0.41}], [{**POINT, "version": "v2"}], [POINT, {**POINT, "watchlist": "custody"}]],
)
def test_another_operating_point_keeps_lists_apart(points: list[dict[str, Any]]) -> None:
    home = source_list("north", MODEL, "identification", [POINT], [candidate(1, 0.5)])
    theirs = source_list("east", MODEL, "identification", points, [candidate(1, 0.5, "E")])
    assert len(merge([home, theirs])) == 2
    assert len(merge([home, source_list("east", MODEL, "identification", [POINT], [])])) == 1


def test_one_identifier_in_two_galleries_stays_two_candidates() -> None:
    lists = [source_list(name, MODEL, "investigation", [], [candidate(1, 0.5)]) for name in ("north", "east")]
    [merged] = merge(lists)
    assert [one["source"] for one in merged["candidates"]] == ["north", "east"]
    assert merged["candidates"][0]["subject_id"] == merged["candidates"][1]["subject_id"]
