"""Candidate lists judged; runs as the metric functions take them."""

from __future__ import annotations

import numpy as np

from services.local.evaluation.metrics import NO_SCORE, UNRANKED
from services.local.evaluation.records import ListedSubject, judge, not_acquired
from services.local.evaluation.searching import most_prominent
from tests.unit.evaluation.builders import failed, result, run_of, still

LIST = (ListedSubject("bert", 0.7, "b.jpg"), ListedSubject("anna", 0.6, "a.jpg"), ListedSubject("carl", 0.1, "c.jpg"))


def test_the_own_subject_and_the_best_of_anybody_else_are_told_apart() -> None:
    judged = judge(still("anna"), LIST, is_mated=True, quality=1.0, inter_eye_px=2.0, faces=1)
    assert (judged.rank, judged.score) == (2, 0.6)
    assert judged.best_other == LIST[0]


def test_a_subject_that_is_not_listed_is_unranked() -> None:
    judged = judge(still("dora"), LIST, is_mated=True, quality=1.0, inter_eye_px=2.0, faces=1)
    assert (judged.rank, judged.score) == (UNRANKED, None)


def test_an_enrolled_still_is_a_non_mated_search_without_its_own_subject() -> None:
    judged = judge(still("bert"), LIST, is_mated=False, quality=1.0, inter_eye_px=2.0, faces=1)
    run = run_of(result("anna"), left_out=(judged,))
    assert len(run.non_mated()) == 0
    np.testing.assert_allclose(np.sort(run.non_mated_leaving_one_out().scores), [0.2, 0.6])


def test_a_failure_to_acquire_is_a_miss_and_no_false_positive() -> None:
    run = run_of(result("anna"), failed("anna"), not_acquired(still("stranger"), "image_undecodable", is_mated=False))
    assert run.mated().ranks.tolist() == [1, UNRANKED]
    assert run.non_mated().scores.tolist() == [NO_SCORE]


def test_searches_of_one_subject_share_a_cluster_also_between_mated_and_non_mated() -> None:
    run = run_of(result("anna"), result("anna"), result("bert"), left_out=(result("anna", is_mated=False),))
    first, second, third = run.mated().clusters
    assert first == second != third
    assert run.non_mated_leaving_one_out().clusters[-1] == first


def test_the_most_prominent_face_is_large_and_sure() -> None:
    faces = [
        {"index": 0, "box": {"width": 94, "height": 117}, "detection_score": 0.85},
        {"index": 1, "box": {"width": 95, "height": 113}, "detection_score": 0.94},
        {"index": 2, "box": {"width": 10, "height": 12}, "detection_score": 0.99},
    ]
    assert most_prominent(faces) == 1
