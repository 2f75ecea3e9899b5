from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.search.identification.candidates import is_permitted, list_candidates, meets_threshold
from services.search.ports import GalleryHit, ReferenceRecord, SearchScope

SCOPES = (SearchScope("custody", frozenset({"northshire"})), SearchScope("liberal", frozenset({"eastmoor"})))


def hit(
    reference_id: str, score: float, subject_id: str = "", *, owner: str = "northshire", watchlist: str = "custody"
) -> GalleryHit:
    record = ReferenceRecord(reference_id, subject_id or reference_id, owner, watchlist, 1, 0)
    return GalleryHit(record, score)


def listed(*hits: GalleryHit, limit: int = 20, thresholds: dict[str, float] | None = None) -> list[tuple[int, str]]:
    candidates = list_candidates(hits, limit, thresholds=thresholds, may_be_returned=lambda _reference: True)
    return [(candidate.rank, candidate.reference_id) for candidate in candidates]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.363, 0.5, 0.6, 0.7, 0.9, -0.2, 0.0, 1.0, -1.0])
def test_a_score_equal_to_the_threshold_counts_in_the_precision_of_scores(threshold: float) -> None:
    equal = np.float32(threshold)
    assert meets_threshold(float(equal), threshold)
    assert meets_threshold(float(np.nextafter(equal, np.float32(2))), threshold)
    assert not meets_threshold(float(np.nextafter(equal, np.float32(-2))), threshold)


def test_without_a_threshold_every_score_counts() -> None:
    assert meets_threshold(-1.0, None)


def test_one_candidate_a_subject_by_its_best_reference() -> None:
    assert listed(hit("a1", 0.4, "A"), hit("b1", 0.5, "B"), hit("a2", 0.9, "A")) == [(1, "a2"), (2, "b1")]


def test_two_forces_may_use_one_identifier_for_two_persons() -> None:
    assert len(listed(hit("n", 0.9, "7"), hit("e", 0.8, "7", owner="eastmoor"))) == 2


def test_ties_are_broken_by_reference_id_whatever_the_order() -> None:
    hits = [hit("c", 0.5), hit("a", 0.5), hit("b", 0.5)]
    assert listed(*hits) == listed(*reversed(hits)) == [(1, "a"), (2, "b"), (3, "c")]


def test_the_threshold_of_each_watchlist_holds_for_its_references() -> None:
    hits = [hit("n", 0.5), hit("e", 0.5, owner="eastmoor", watchlist="liberal")]
    assert listed(*hits, thresholds={"custody": 0.6, "liberal": 0.5}) == [(1, "e")]


def test_what_may_not_be_returned_takes_nobodys_place() -> None:
    hits = [hit("a", 0.9), hit("b", 0.8), hit("c", 0.7)]
    candidates = list_candidates(
        hits, 2, thresholds=None, may_be_returned=lambda reference: reference.reference_id != "a"
    )
    assert [(c.rank, c.reference_id) for c in candidates] == [(1, "b"), (2, "c")]


def test_a_subject_whose_best_reference_may_not_be_returned_is_there_by_its_next() -> None:
    hits = [hit("a1", 0.9, "A"), hit("a2", 0.6, "A")]
    (candidate,) = list_candidates(hits, 2, thresholds=None, may_be_returned=lambda r: r.reference_id != "a1")
    assert (candidate.reference_id, candidate.score) == ("a2", 0.6)


@pytest.mark.parametrize(
    ("owner", "watchlist", "expires_at", "expected"),
    [
        ("northshire", "custody", 0, True),
        ("northshire", "custody", 101, True),
        ("northshire", "custody", 100, False),
        ("northshire", "custody", 99, False),
        ("eastmoor", "custody", 0, False),
        ("northshire", "liberal", 0, False),
        ("eastmoor", "liberal", 0, True),
    ],
)
def test_permission_of_one_reference(owner: str, watchlist: str, expires_at: int, expected: bool) -> None:
    record = ReferenceRecord("r", "s", owner, watchlist, 1, expires_at)
    assert is_permitted(record, SCOPES, 100.0) is expected


scored = st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.floats(-1, 1, width=32))


@given(st.lists(scored, max_size=40), st.integers(2, 50), st.floats(-1, 1))
def test_a_list_is_ordered_whole_and_over_its_threshold(
    drawn: list[tuple[int, str, float]], limit: int, threshold: float
) -> None:
    hits = [hit(f"r{i}", score, f"s{number}", owner=owner) for i, (number, owner, score) in enumerate(drawn)]
    candidates = list_candidates(
        hits, limit, thresholds={"custody": threshold}, may_be_returned=lambda _reference: True
    )
    over = [h for h in hits if meets_threshold(h.score, threshold)]
    subjects = {(h.reference.owner, h.reference.subject_id) for h in over}
    assert len(candidates) == min(limit, len(subjects))
    keys = [(-c.score, c.reference_id) for c in candidates]
    assert keys == sorted(keys)
    assert len({(c.owner, c.subject_id) for c in candidates}) == len(candidates)
    for candidate in candidates:
        own = [
            h for h in over if (h.reference.owner, h.reference.subject_id) == (candidate.owner, candidate.subject_id)
        ]
        assert candidate.score == max(h.score for h in own)
