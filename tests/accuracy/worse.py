"""Further worse versions of a picture, for the fit of quality: what distance and compression do not make."""

from __future__ import annotations

import cv2
import numpy as np

from services.embed.faces.geometry import Points
from services.embed.ports import Pixels


def darkened(pixels: Pixels, gain: float) -> Pixels:
    """Little light, and the noise of a sensor that is turned up: the same every time."""
    noise = np.random.default_rng(7).normal(0, 6, pixels.shape)
    return (pixels * gain + noise).clip(0, 255).astype(np.uint8)


def hazy(pixels: Pixels) -> Pixels:
    """A quarter of the contrast, on grey."""
    return (pixels * 0.25 + 110).clip(0, 255).astype(np.uint8)


def masked(pixels: Pixels, landmarks: Points) -> Pixels:
    """A surgical mask: cloth from the middle of the nose to below the chin."""
    eyes = (landmarks[0] + landmarks[1]) / 2
    along = landmarks[1] - landmarks[0]
    down = (landmarks[3] + landmarks[4]) / 2 - eyes
    top, bottom = eyes + 0.45 * down, eyes + 1.75 * down
    corners = np.array([top - 0.75 * along, top + 0.75 * along, bottom + 0.55 * along, bottom - 0.55 * along])
    covered = np.ascontiguousarray(pixels.copy())
    cv2.fillConvexPoly(covered, np.rint(corners).astype(np.int32), (196, 170, 120))
    return covered


def with_dark_glasses(pixels: Pixels, landmarks: Points) -> Pixels:
    """Two black discs over the eyes."""
    covered = np.ascontiguousarray(pixels.copy())
    radius = max(2, round(0.3 * float(np.hypot(*(landmarks[1] - landmarks[0])))))
    for eye in landmarks[:2]:
        cv2.circle(covered, tuple(int(value) for value in np.rint(eye)), radius, (18, 16, 16), -1)
    return covered
