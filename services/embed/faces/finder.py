"""Finds every face of a picture, whatever its size: the detector run at the scales that a picture needs."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from services.embed.faces.detector import Detection, YuNet, suppress
from services.embed.faces.picture import Picture
from services.embed.faces.turned import TurnedFaces, is_same_place, turned_views, upright_detection
from services.embed.ports import Pixels

# Longer side of the first pass: every face over about 2 % of the picture, at 11 ms.
FIRST_LONG_SIDE = 640
# Longer side of the finer pass, for small faces.
FINE_LONG_SIDE = 1280
# Faces narrower than this in a pass are found, and their landmarks placed, better at twice the scale.
SMALL_FACE_PX = 28.0
# A face that fills the picture is found when it is made small, with room around it.
CLOSE_UP_LONG_SIDES = (256, 128)
# Pictures smaller than this are enlarged when nothing is found in them.
ENLARGE_BELOW = 240
# What is found in a way that pictures without a face get too has to be this sure.
SURE_WHEN_TURNED = 0.75
# From so many faces on a picture is looked at from the sides as well: somebody may lie or lean among others. It costs
# seven more looks, which a picture of one person never pays; of several faces one has to be picked anyway.
SEVERAL = 2
SURE_AMONG_OTHERS = 0.8
# Mean grey level from which on a picture is not dark.
DARK_BELOW = 60.0
_BRIGHTER = np.round(255 * (np.arange(256) / 255) ** 0.4).astype(np.uint8)


class FaceFinder:
    """Detections in pixels of the upright original, in reading order."""

    def __init__(self, detector: YuNet, *, nms_threshold: float, max_faces: int) -> None:
        self._detector = detector
        self._nms_threshold = nms_threshold
        self._max_faces = max_faces
        self._turned = TurnedFaces(detector)

    def find(self, picture: Picture, *, is_thorough: bool = True) -> list[Detection]:
        """Without `is_thorough`, a picture in which nothing is found at first is looked at once more, finely, and that
        is all: for frames of films, most of which show nobody, and of which the next one comes in a moment."""
        long_side = max(picture.width, picture.height)
        first = min(1.0, FIRST_LONG_SIDE / long_side)
        found = self._pass(picture, first)
        if not found:
            found = self._search_harder(picture, first) if is_thorough else self._fine(picture, first)
        elif first < 1.0 and min(face.box[2] for face in found) * first < SMALL_FACE_PX:
            first = min(1.0, FINE_LONG_SIDE / long_side)
            found = self._merge(found, self._pass(picture, first))
        if is_thorough and len(found) >= SEVERAL:
            found = [*found, *self._turned_among(picture, first, found)]
        best = sorted(found, key=lambda face: -face.score)[: self._max_faces]
        return reading_order(best)

    def settled(self, picture: Picture, face: Detection) -> Detection:
        """A face that was found, with its landmarks where they belong if it is turned."""
        return self._turned.settled(picture, face)

    def _search_harder(self, picture: Picture, first: float) -> list[Detection]:
        long_side = max(picture.width, picture.height)
        for side in CLOSE_UP_LONG_SIDES:
            found = self._pass(picture, min(1.0, side / long_side), margin=0.5)
            if found:
                return found
        if first < 1.0:
            found = self._pass(picture, min(1.0, FINE_LONG_SIDE / long_side))
        elif long_side < ENLARGE_BELOW:
            found = self._pass(picture, 2.0)
        return found or self._search_turned(picture, first) or self._search_dark(picture, first)

    def _fine(self, picture: Picture, first: float) -> list[Detection]:
        fine = min(1.0, FINE_LONG_SIDE / max(picture.width, picture.height))
        return self._pass(picture, fine) if first < 1.0 else []

    def _search_turned(self, picture: Picture, scale: float) -> list[Detection]:
        """Faces of a picture that lies on its side or stands on its head, from the view that shows the surest one."""
        reduced = picture.reduced(scale)
        factor = np.array([picture.width / reduced.shape[1], picture.height / reduced.shape[0]])
        best: list[Detection] = []
        for view, there in turned_views(reduced):
            found = [upright_detection(face, there) for face in self._detector.detect(view)]
            # Seven more looks at a picture without a face would find one in the clouds.
            found = [face for face in found if face.score >= SURE_WHEN_TURNED]
            if sum(face.score for face in found) > sum(face.score for face in best):
                best = found
        return [_to_original(face, factor, np.zeros(2)) for face in best]

    def _turned_among(self, picture: Picture, scale: float, found: Sequence[Detection]) -> list[Detection]:
        """Faces that are turned, of a picture in which others are upright: the surest view of each, none twice."""
        reduced = picture.reduced(scale)
        factor = np.array([picture.width / reduced.shape[1], picture.height / reduced.shape[0]])
        seen = [
            _to_original(upright_detection(face, there), factor, np.zeros(2))
            for view, there in turned_views(reduced)
            for face in self._detector.detect(view)
            if face.score >= SURE_AMONG_OTHERS
        ]
        among: list[Detection] = []
        for face in sorted(seen, key=lambda face: -face.score):
            if not any(is_same_place(face, other) for other in (*found, *among)):
                among.append(face)
        return among

    def _search_dark(self, picture: Picture, scale: float) -> list[Detection]:
        """Faces of a picture with little light, found with more of it; templates are made of the pixels as they are."""
        reduced = picture.reduced(scale)
        if float(reduced.mean()) > DARK_BELOW:
            return []
        brighter = cv2.LUT(reduced, _BRIGHTER)
        factor = np.array([picture.width / reduced.shape[1], picture.height / reduced.shape[0]])
        found = self._detector.detect(brighter)  # type: ignore[arg-type]
        return [_to_original(face, factor, np.zeros(2)) for face in found if face.score >= SURE_WHEN_TURNED]

    def _pass(self, picture: Picture, scale: float, margin: float = 0.0) -> list[Detection]:
        reduced = picture.reduced(scale)
        height, width = reduced.shape[:2]
        across, down = round(width * margin), round(height * margin)
        if margin:
            reduced = _with_margin(reduced, across, down)
        # The size is rounded to whole pixels, so the two axes have scales of their own.
        factor = np.array([picture.width / width, picture.height / height])
        offset = np.array([across, down])
        return [_to_original(face, factor, offset) for face in self._detector.detect(reduced)]

    def _merge(self, coarse: list[Detection], fine: list[Detection]) -> list[Detection]:
        """Small faces from the fine pass, large ones from the coarse; of two that overlap the better one."""
        rows = [np.concatenate([face.box, face.landmarks.ravel(), [face.score]]) for face in (*fine, *coarse)]
        return [
            Detection(box=row[:4], landmarks=row[4:14].reshape(5, 2), score=float(row[14]))
            for row in suppress(np.array(rows), self._nms_threshold)
        ]


def _with_margin(picture: Pixels, across: int, down: int) -> Pixels:
    return cv2.copyMakeBorder(  # type: ignore[return-value]
        picture, down, down, across, across, cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )


def _to_original(face: Detection, factor: np.ndarray, offset: np.ndarray) -> Detection:
    # Pixel centres: x_original = (x + 0.5) * factor - 0.5.
    corner = (face.box[:2] - offset + 0.5) * factor - 0.5
    landmarks = (face.landmarks - offset + 0.5) * factor - 0.5
    return Detection(box=np.concatenate([corner, face.box[2:] * factor]), landmarks=landmarks, score=face.score)


def reading_order(faces: list[Detection]) -> list[Detection]:
    """Top to bottom in rows, left to right in a row. A face is in a row while its centre is above that row's middle
    by less than half a face."""
    ordered: list[Detection] = []
    row: list[Detection] = []
    for face in sorted(faces, key=_centre_y):
        if row and _centre_y(face) > _centre_y(row[0]) + 0.5 * float(row[0].box[3]):
            ordered += sorted(row, key=lambda item: float(item.box[0]))
            row = []
        row.append(face)
    return ordered + sorted(row, key=lambda item: float(item.box[0]))


def _centre_y(face: Detection) -> float:
    return float(face.box[1] + face.box[3] / 2)
