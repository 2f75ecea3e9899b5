"""Quality components are monotone in what they measure."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from services.embed.faces.quality import VITAL, WEIGHTS, head_pose, measure_quality, unify
from services.embed.faces.recogniser import REFERENCE_POINTS
from services.embed.ports import Pixels


def _texture() -> Pixels:
    noise = np.random.default_rng(5).integers(0, 255, (112, 112, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.2)  # type: ignore[return-value]


def _component(name: str, pixels: Pixels, landmarks: np.ndarray = REFERENCE_POINTS, score: float = 0.9) -> float:
    return measure_quality(pixels, landmarks, score).components[name]


def _falls(values: list[float]) -> bool:
    return all(later < earlier for earlier, later in pairwise(values))


def test_every_component_is_between_0_and_100_and_weighed() -> None:
    quality = measure_quality(_texture(), REFERENCE_POINTS, 0.9)
    assert set(quality.components) >= set(WEIGHTS) | set(VITAL)
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert all(0 <= value <= 100 for value in quality.components.values())
    assert 0 < quality.unified < 100


def test_distance_between_the_eyes() -> None:
    values = [_component("inter_eye_distance", _texture(), REFERENCE_POINTS * scale) for scale in (3, 1, 0.5, 0.25)]
    assert _falls(values)


def test_sharpness_falls_with_blur() -> None:
    pixels = _texture()
    blurred = [pixels, *(cv2.GaussianBlur(pixels, (0, 0), sigma) for sigma in (1, 2, 4))]
    assert _falls([_component("sharpness", item) for item in blurred])  # type: ignore[arg-type]


def test_contrast_falls_as_greys_come_together() -> None:
    pixels = _texture().astype(np.float32)
    flatter = [((pixels - 127) * gain + 127).clip(0, 255).astype(np.uint8) for gain in (1, 0.5, 0.2, 0)]
    assert _falls([_component("contrast", item) for item in flatter])


def test_illumination_falls_in_the_dark_and_when_one_side_is_darker() -> None:
    pixels = _texture().astype(np.float32)
    darker = [(pixels * gain).astype(np.uint8) for gain in (1, 0.5, 0.2, 0)]
    assert _falls([_component("illumination", item) for item in darker])
    shade = np.ones((1, 112, 1), np.float32)
    one_sided = []
    for gain in (1.0, 0.6, 0.3, 0.0):
        shade[:, :56] = gain
        one_sided.append((pixels * shade).astype(np.uint8))
    assert _falls([_component("illumination", item) for item in one_sided])


def test_pose_is_estimated_from_landmarks() -> None:
    assert all(abs(math.degrees(angle)) < 6 for angle in head_pose(REFERENCE_POINTS))
    for degrees in (-30.0, 20.0):
        angle = math.radians(degrees)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        yaw, pitch, roll = head_pose(REFERENCE_POINTS @ turn.T)
        frontal = head_pose(REFERENCE_POINTS)
        assert math.degrees(roll) == pytest.approx(degrees + math.degrees(frontal[2]))
        assert (yaw, pitch) == pytest.approx(frontal[:2])


@pytest.mark.parametrize(("name", "axis"), [("yaw", 0), ("pitch", 1)])
def test_turned_heads_score_less(name: str, axis: int) -> None:
    values = []
    for shift in (0, 8, 16, 30):
        landmarks = REFERENCE_POINTS.copy()
        landmarks[2, axis] += shift
        values.append(_component(name, _texture(), landmarks))
    assert _falls(values)


def test_unified_falls_with_each_component_and_is_nothing_when_one_is() -> None:
    full = dict.fromkeys({*WEIGHTS, *VITAL}, 80.0)
    assert unify(full) == pytest.approx(80)
    for name in WEIGHTS:
        assert unify({**full, name: 40.0}) < unify(full)
    for name in VITAL:
        assert unify({**full, name: 0.0}) == 0


def test_degenerate_landmarks_do_not_fail() -> None:
    quality = measure_quality(_texture(), np.zeros((5, 2)), 0.9)
    assert quality.unified == 0
