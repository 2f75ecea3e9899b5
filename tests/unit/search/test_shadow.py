"""Shadow searches: what is counted, and that nothing of them reaches the search that was answered."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from services.search.ports import Candidate
from services.search.shadow.comparing import compare, document
from services.search.shadow.store import SqlShadowCounts
from tests.unit.search.fakes import open_store


def listed(*subjects: str, scores: tuple[float, ...] = ()) -> list[Candidate]:
    return [
        Candidate(rank, name, f"r-{name}", "custody", "northshire", scores[rank - 1] if scores else 0.9 - rank / 100)
        for rank, name in enumerate(subjects, start=1)
    ]


def test_equal_lists_agree_wholly() -> None:
    found = document(compare(listed("a", "b"), listed("a", "b"), "old", "new"))
    assert found["searches"] == 1
    assert found["rank_1_same"]["share"] == found["identical_lists"]["share"] == 1.0
    assert found["overlap"] == {"1": 1.0, "5": 1.0, "10": 1.0, "20": 1.0}
    assert found["rank_1_of_served_stands_at"]["1"] == 1


def test_changes_of_rank_are_counted_by_where_the_first_stands_now() -> None:
    others = [f"x{number}" for number in range(12)]
    counts = compare(listed("a", "b"), listed("b", "a"), "old", "new")
    counts.update(compare(listed("a"), listed(*others[:6], "a"), "old", "new"))
    counts.update(compare(listed("a"), listed(*others, "a"), "old", "new"))
    counts.update(compare(listed("a"), listed(*others), "old", "new"))
    found = document(counts)
    assert found["rank_1_same"]["count"] == 0
    assert found["rank_1_of_served_stands_at"] == {"1": 0, "2-5": 1, "6-10": 1, "11-20": 1, "beyond": 1}
    assert found["overlap"]["1"] == 0.0
    low, high = found["rank_1_same"]["interval_95"]
    assert low == 0.0
    assert 0.4 < high < 0.6  # none of four may well be half of all


def test_the_shorter_list_does_not_flatter_the_overlap() -> None:
    assert document(compare(listed("a"), listed("a", "b"), "old", "new"))["overlap"]["5"] == 0.5


def test_nobody_found_by_either_is_an_agreement_without_a_first() -> None:
    found = document(compare([], [], "old", "new"))
    assert found["rank_1_same"] == {"count": 0, "of": 0, "share": None, "interval_95": None}
    assert found["overlap"]["1"] is None
    assert found["identical_lists"]["count"] == 1


def test_scores_are_counted_for_each_model_by_itself() -> None:
    counts = compare(listed("a", scores=(0.72,)), listed("a", scores=(-0.01,)), "old", "new")
    assert document(counts)["scores"] == {"new": {"rank_1": {"-0.05": 1}}, "old": {"rank_1": {"+0.70": 1}}}


@pytest.mark.parametrize(("score", "edge"), [(0.7, "+0.70"), (0.749, "+0.70"), (0.75, "+0.75"), (-1.0, "-1.00")])
def test_a_score_at_an_edge_belongs_above_it(score: float, edge: str) -> None:
    counts = compare(listed("a", scores=(score,)), [], "old", "new")
    assert document(counts)["scores"] == {"old": {"rank_1": {edge: 1}}}


def test_the_report_names_nobody() -> None:
    counts = compare(listed("CRO-123/77"), listed("CRO-999/12"), "old", "new")
    assert not any("CRO" in name or "northshire" in name for name in counts)


def test_counts_of_several_processes_are_added(tmp_path: Path) -> None:
    _, engine = open_store(tmp_path)
    one, two = SqlShadowCounts(engine, "p1"), SqlShadowCounts(engine, "p2")
    one.keep("m", "old", {"searches": 1})
    one.keep("m", "old", {"searches": 3})  # replaces its own
    two.keep("m", "old", {"searches": 4, "dropped": 1})
    two.keep("m", "new", {"searches": 9})
    two.keep("another", "old", {"searches": 100})
    assert one.of("m") == {"old": Counter(searches=7, dropped=1), "new": Counter(searches=9)}
    engine.dispose()
