"""What is read from pixels at fixed places of the aligned face moves the right way, and grades follow quality."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from services.embed.faces import components
from services.embed.faces.assessment import assess, bands
from services.embed.faces.quality import VITAL, WEIGHTS, measure_quality
from services.embed.faces.recogniser import REFERENCE_POINTS
from services.embed.ports import Pixels
from services.shared.biometric import Quality
from services.shared.capture_advice import capture_advice

SKIN = (140, 165, 205)


def _drawn_face(*, lids: int = 0, mouth: int = 1) -> Pixels:
    """A face of the aligned square: `lids` rows of each eye are covered, the mouth is open by so many pixels."""
    face = np.full((112, 112, 3), SKIN, np.uint8)
    for x, y in ((38, 52), (74, 52)):
        cv2.ellipse(face, (x, y), (8, 5), 0, 0, 360, (235, 235, 235), -1)
        cv2.circle(face, (x, y), 4, (40, 30, 30), -1)
        if lids:
            cv2.rectangle(face, (x - 9, y - 6), (x + 9, y - 6 + lids), SKIN, -1)
    cv2.ellipse(face, (56, 92), (14, max(1, mouth)), 0, 0, 360, (40, 30, 60), -1)
    return face


def _grey(face: Pixels) -> Pixels:
    return cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)  # type: ignore[return-value]


def _never_rises(values: list[float]) -> bool:
    return all(later <= earlier for earlier, later in pairwise(values)) and values[-1] < values[0]


def test_eyes_close() -> None:
    assert _never_rises([components.eyes_open(_grey(_drawn_face(lids=rows))) for rows in (0, 5, 8, 12)])


def test_a_mouth_opens() -> None:
    values = [components.mouth_closed(_grey(_drawn_face(mouth=rows))) for rows in (1, 3, 5, 9)]
    assert _never_rises(values)
    assert values[0] >= 90


def test_a_smile_widens_the_mouth() -> None:
    values = []
    for widening in (0, 3, 6, 9):
        landmarks = REFERENCE_POINTS.copy()
        landmarks[3, 0] -= widening
        landmarks[4, 0] += widening
        values.append(components.expression(landmarks, 100.0))
    assert _never_rises(values)


def test_glasses_and_masks_hide_a_face() -> None:
    free = _drawn_face()
    glasses, mask = free.copy(), free.copy()
    for x in (38, 74):
        cv2.circle(glasses, (x, 52), 11, (15, 12, 12), -1)
    mask[72:] = (200, 170, 110)
    assert components.visibility(free) > 80
    assert components.visibility(glasses) < 10
    assert components.visibility(mask) < 20


def test_compression_hurts_by_its_blocks_beside_the_face() -> None:
    assert _never_rises([components.compression(blockiness, 40) for blockiness in (1.0, 1.2, 1.6, 2.5)])
    assert _never_rises([components.compression(1.5, eyes) for eyes in (120, 60, 24, 12)])
    assert components.compression(0.9, 12) == 100


def test_a_busy_background_scores_less() -> None:
    noise = np.random.default_rng(2).integers(0, 255, (96, 96, 3)).astype(np.float32)
    chips = [(128 + (noise - 128) * gain).astype(np.uint8) for gain in (0.0, 0.1, 0.3, 1.0)]
    assert _never_rises([components.background(chip) for chip in chips])
    assert components.background(np.zeros((8, 8, 3), np.uint8)) == 100, "too little of it to say anything"


def test_hints_do_not_fail_on_anything() -> None:
    for value in (0, 255):
        quality = measure_quality(np.full((112, 112, 3), value, np.uint8), np.zeros((5, 2)), 0.0)
        assert quality.unified == 0
        assert all(0 <= component <= 100 for component in quality.components.values())


def test_grades_fall_with_quality_and_say_what_they_stand_on() -> None:
    order = ["suitable", "with_caution", "unsuitable"]
    graded = [assess(Quality(float(unified), {})) for unified in range(100, -1, -1)]
    places = [order.index(assessment.grade) for assessment in graded]
    assert places == sorted(places)
    assert set(places) == {0, 1, 2}
    for assessment in graded:
        rate = assessment.false_non_match
        assert 0 <= rate.low <= rate.misses / rate.searches <= rate.high <= 1
        assert rate.searches >= 50
        assert rate.basis
    assert [band.from_quality for band in bands().bands] == sorted(
        (band.from_quality for band in bands().bands), reverse=True
    )


@pytest.mark.parametrize("name", sorted({*WEIGHTS, *VITAL} - {"detection", "roll"}))
def test_a_poor_component_is_advised_on(name: str) -> None:
    full = dict.fromkeys({*WEIGHTS, *VITAL}, 95.0)
    assert capture_advice(full) == ()
    assert len(capture_advice({**full, name: 5.0})) == 1


def test_no_more_advice_than_a_person_can_follow() -> None:
    assert len(capture_advice(dict.fromkeys(WEIGHTS, 1.0))) == 3
