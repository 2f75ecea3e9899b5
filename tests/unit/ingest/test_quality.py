"""Which face is enrolled, and when an image is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.ingest.enrolling.enrolment import Verdict
from services.ingest.enrolling.quality import decide
from services.ingest.settings import QualityPolicy
from services.shared.biometric import (
    Box,
    DetectedFace,
    FaceTemplate,
    ImageAnalysis,
    ImageInfo,
    ModelProvenance,
    Quality,
    Vector,
)

MODEL = ModelProvenance("m1", "d", "0" * 64, "r", "1" * 64, "Apache-2.0", 4, "p1", "rt", "CPU")
POLICY = QualityPolicy(min_inter_eye_px=20, min_unified_quality=30, rival_size_ratio=0.75, rival_detection_score=0.8)
UNIT = np.array([0.6, 0.8, 0, 0], dtype=np.float32)


def face(
    inter_eye_px: float = 60,
    *,
    vector: Vector | None = UNIT,
    score: float = 0.9,
    quality: float = 70,
    at: tuple[float, float] = (50, 50),
) -> DetectedFace:
    """A face whose box has its centre at a place of a picture of 100 x 100."""
    template = None if vector is None else FaceTemplate(vector, "m1")
    box = Box(at[0] - 5, at[1] - 5, 10, 10)
    return DetectedFace(box, (), score, inter_eye_px, Quality(quality, {"sharpness": 1.0}), template)


def analysis(*faces: DetectedFace) -> ImageAnalysis:
    return ImageAnalysis(ImageInfo("JPEG", 100, 100, 1, 1, 1), faces, MODEL, {})


def test_a_good_face_is_enrolled_with_what_it_was_decided_on() -> None:
    decision = decide(analysis(face()), POLICY, 5)
    assert (decision.verdict, decision.reason, decision.decided_at_ms) == (Verdict.ENROL, "", 5)
    assert decision.template == UNIT.astype("<f4").tobytes()
    assert (decision.model, decision.unified_quality, decision.inter_eye_px) == (MODEL, 70, 60)


def test_no_face_is_refused() -> None:
    assert decide(analysis(), POLICY, 0).reason == "no_face_found"


@pytest.mark.parametrize(
    ("other", "is_refused"),
    [
        (face(45, vector=None), True),  # at the ratio
        (face(44, vector=None), False),  # just below it
        (face(90, vector=None), True),  # larger than the subject, but cut off by the edge or so
        (face(60, vector=None, score=0.8), True),
        (face(60, vector=None, score=0.79), False),
    ],
)
def test_a_rival_is_of_comparable_size_and_certain(other: DetectedFace, is_refused: bool) -> None:
    for faces in ((face(), other), (other, face())):
        decision = decide(analysis(*faces), POLICY, 0)
        assert (decision.reason == "several_faces") == is_refused


@pytest.mark.parametrize(
    ("subject_at", "other_at", "is_refused"),
    [
        ((50, 50), (12, 50), False),  # a bystander at the edge
        ((50, 50), (50, 10), False),  # in the row behind
        ((33, 50), (67, 50), True),  # side by side
        ((12, 50), (50, 50), True),  # the larger one is the bystander, perhaps
        ((12, 50), (88, 50), True),
        ((50, 50), (75, 50), True),  # at the edge of the middle
        ((50, 50), (75.5, 50), False),
    ],
)
def test_who_stands_in_the_middle_is_the_subject(
    subject_at: tuple[float, float], other_at: tuple[float, float], is_refused: bool
) -> None:
    decision = decide(analysis(face(at=subject_at), face(58, vector=None, at=other_at)), POLICY, 0)
    assert (decision.reason == "several_faces") == is_refused
    strict = POLICY.model_copy(update={"middle_share": 1.0})
    assert (
        decide(analysis(face(at=subject_at), face(58, vector=None, at=other_at)), strict, 0).reason == "several_faces"
    )


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (face(20), ""),
        (face(19.9), "quality_too_low"),
        (face(quality=30), ""),
        (face(quality=29.9), "quality_too_low"),
    ],
)
def test_the_policy_holds_at_equality(subject: DetectedFace, reason: str) -> None:
    decision = decide(analysis(subject), POLICY, 0)
    assert decision.reason == reason
    assert bool(decision.template) == (not reason)
    assert bool(decision.detail) == bool(reason)
    # What a refusal was measured on stays on record.
    assert decision.unified_quality == subject.quality.unified


@pytest.mark.parametrize(
    "vector",
    [None, UNIT * 2, UNIT[:3], np.full(4, np.nan, dtype=np.float32), np.zeros(4, dtype=np.float32)],
)
def test_an_unusable_template_is_quarantined(vector: Vector | None) -> None:
    decision = decide(analysis(face(vector=vector)), POLICY, 0)
    assert (decision.verdict, decision.reason, decision.template) == (Verdict.QUARANTINE, "unusable_template", b"")


def test_the_dimension_is_the_models() -> None:
    other = replace(analysis(face()), model=replace(MODEL, dimension=8))
    assert decide(other, POLICY, 0).reason == "unusable_template"


def test_a_refusal_says_in_words_what_would_be_good_enough() -> None:
    poor = replace(face(quality=10), quality=Quality(10, {"yaw": 20.0, "illumination": 30.0, "sharpness": 90.0}))
    detail = decide(analysis(poor), POLICY, 0).detail
    assert detail.startswith("Quality 10 of 100, 30 is needed.")
    assert "look straight into the camera" in detail
    assert "light it evenly" in detail
    assert "not sharp" not in detail
