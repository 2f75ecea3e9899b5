"""Faces that are not upright: the detector finds many of them, but places their landmarks as if they were.

A template made from such landmarks is like nobody's, not even the same person's upright (cosine 0.0, measured at every
angle from 60° on). Faces that the detector is less sure of than of nearly any upright one are therefore shown to it
again turned, and where it is clearly surer of a turned view, that view's landmarks are taken. What was upright before
keeps its landmarks to the last bit: docs/probes.md has the counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from services.embed.faces.detector import Detection, YuNet
from services.embed.faces.geometry import Affine, Points
from services.embed.faces.picture import Picture
from services.embed.ports import Pixels

# Nine in ten upright faces of the development set, as they are, score more.
DOUBTFUL = 0.91
# A turned view has to be better than the upright ones by so much.
CLEARLY = 0.015
_VIEW_PX = 160  # a multiple of the detector's divisor
_ROOM = 2.0  # of a view that is not the face, in boxes
_ANGLES = (45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)


class TurnedFaces:
    """Looks at doubtful faces from other sides."""

    def __init__(self, detector: YuNet) -> None:
        self._detector = detector

    def settled(self, picture: Picture, face: Detection) -> Detection:
        """The same face, with landmarks that are right where it is turned. A sure one stays as it is, at no cost."""
        if face.score >= DOUBTFUL:
            return face
        middle = face.box[:2] + face.box[2:4] / 2
        side_px = _ROOM * float(face.box[2:4].max())
        # Upright as well, so that like is compared with like.
        ways = [_rotation(middle, _VIEW_PX / side_px, _VIEW_PX, degrees) for degrees in (0.0, *_ANGLES)]
        views = self._detector.detect_all([picture.aligned(there, _VIEW_PX) for there in ways])
        upright, *turned = (_same(face, found, there) for found, there in zip(views, ways, strict=True))
        best = max((each for each in turned if each is not None), key=_score, default=None)
        if best is None or best.score < max(face.score, _score(upright)) + CLEARLY:
            return face
        return best


def _same(face: Detection, found: Sequence[Detection], there: Affine) -> Detection | None:
    """Of what was found in a view, the face itself, in upright pixels."""
    back = (upright_detection(each, there) for each in found)
    return max((each for each in back if is_same_place(each, face)), key=_score, default=None)


def turned_views(picture: Pixels) -> Sequence[tuple[Pixels, Affine]]:
    """A whole reduced picture turned by every eighth, none cut off, and how each was made."""
    height, width = picture.shape[:2]
    source = Picture(picture, 1)
    views = []
    for degrees in (90.0, 270.0, 180.0, 45.0, 315.0, 135.0, 225.0):
        side = max(width, height) if degrees % 90 == 0 else math.ceil(math.hypot(width, height))
        there = _rotation(np.array([width / 2 - 0.5, height / 2 - 0.5]), 1.0, side, degrees)
        views.append((source.aligned(there, side), there))
    return views


def _rotation(middle: np.ndarray, scale: float, side: int, degrees: float) -> Affine:
    angle = math.radians(degrees)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.full(2, side / 2 - 0.5)
    return np.column_stack([linear, centre - linear @ middle])


def upright_detection(face: Detection, there: Affine) -> Detection:
    """A face found in a turned view, in the pixels that the view was made of."""

    def inverse(points: np.ndarray) -> Points:
        return np.asarray(np.linalg.solve(there[:, :2], (points - there[:, 2]).T).T, np.float64)

    x, y, width, height = face.box[:4]
    corners = inverse(np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]]))
    low, high = corners.min(axis=0), corners.max(axis=0)
    # The hull of a turned box is larger than the face: it keeps the area of the box, around the same middle.
    size = (high - low) * math.sqrt(width * height / (np.hypot(*there[:, 0]) ** 2) / float(np.prod(high - low)))
    box = np.concatenate([(low + high - size) / 2, size])
    return Detection(box=box, landmarks=inverse(face.landmarks), score=face.score)


def is_same_place(one: Detection, other: Detection) -> bool:
    """Whether the middle of one lies in the inner half of the other, whatever their boxes are turned by."""
    apart = (one.box[:2] + one.box[2:4] / 2) - (other.box[:2] + other.box[2:4] / 2)
    return float(np.hypot(*apart)) < 0.5 * float(other.box[2:4].max())


def _score(face: Detection | None) -> float:
    return -1.0 if face is None else face.score
