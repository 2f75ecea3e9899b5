"""YuNet: faces with five landmarks, the result of OpenCV's FaceDetectorYN without OpenCV's runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from services.embed.faces.geometry import Points
from services.embed.ports import ModelSession, Pixels, Tensor

STRIDES = (8, 16, 32)
DIVISOR = 32  # the network halves its input five times


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face: box (x, y, width, height) and five landmarks in pixels, score in [0, 1]."""

    box: np.ndarray
    landmarks: Points
    score: float


class YuNet:
    """Finds faces from about 10 to 400 pixels wide; larger ones need a reduced picture.

    Pictures are padded with black to a multiple of 32 and no further: much black around a face moves landmarks (18 %
    of the distance between the eyes was seen), so that few shapes for all pictures are not to be had that way.
    """

    def __init__(self, session: ModelSession, *, score_threshold: float, nms_threshold: float) -> None:
        self._session = session
        self._score_threshold = score_threshold
        self._nms_threshold = nms_threshold

    def detect(self, picture: Pixels) -> list[Detection]:
        """Faces of one upright BGR picture, best score first."""
        [faces] = self.detect_all([picture])
        return faces

    def detect_all(self, pictures: Sequence[Pixels]) -> list[list[Detection]]:
        """Faces of several upright BGR pictures of one size, in one run of the network."""
        height, width = (side + -side % DIVISOR for side in pictures[0].shape[:2])
        blob = np.concatenate([_blob(picture, height, width) for picture in pictures])
        outputs = self._session.run(blob)
        return [
            self._faces({name: rows[index] for name, rows in outputs.items()}, height, width)
            for index in range(len(pictures))
        ]

    def _faces(self, outputs: Mapping[str, Tensor], height: int, width: int) -> list[Detection]:
        rows = _decode(outputs, height, width, self._score_threshold)
        return [
            Detection(box=row[:4], landmarks=row[4:14].reshape(5, 2), score=float(row[14]))
            for row in suppress(rows, self._nms_threshold)
        ]


def _blob(picture: Pixels, height: int, width: int) -> Tensor:
    """Channels first, as float, with black to the right and below up to the size."""
    bottom, right = height - picture.shape[0], width - picture.shape[1]
    if bottom or right:
        picture = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))  # type: ignore[assignment]
    return cv2.dnn.blobFromImage(picture)  # type: ignore[return-value]


def _decode(outputs: Mapping[str, Tensor], height: int, width: int, threshold: float) -> np.ndarray:
    """Anchors of all strides over the threshold, of one picture: rows of x, y, width, height, ten landmark coordinates,
    score."""
    found = []
    for stride in STRIDES:
        columns = width // stride
        likely = outputs[f"cls_{stride}"][:, 0].clip(0, 1) * outputs[f"obj_{stride}"][:, 0].clip(0, 1)
        score = np.sqrt(likely)
        index = np.flatnonzero(score >= threshold)
        if index.size:
            column_row = np.stack([index % columns, index // columns], axis=1).astype(np.float32)
            found.append(_rows(outputs, stride, index, column_row, score[index]))
    return np.concatenate(found) if found else np.empty((0, 15), np.float64)


def _rows(
    outputs: Mapping[str, Tensor], stride: int, index: np.ndarray, anchors: np.ndarray, score: np.ndarray
) -> np.ndarray:
    box, points = outputs[f"bbox_{stride}"][index], outputs[f"kps_{stride}"][index]
    centre = (anchors + box[:, :2]) * stride
    size = np.exp(box[:, 2:4]) * stride
    landmarks = (points + np.tile(anchors, 5)) * stride
    return np.column_stack([centre - size / 2, size, landmarks, score]).astype(np.float64)


def suppress(rows: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression by overlap, best score first, on boxes in whole pixels as OpenCV has them."""
    if len(rows) < 2:
        return rows
    rows = rows[np.argsort(-rows[:, 14], kind="stable")]
    left_top = np.trunc(rows[:, :2])
    size = np.trunc(rows[:, 2:4])
    right_bottom, area = left_top + size, size.prod(axis=1)
    alive = np.ones(len(rows), dtype=bool)
    for index in range(len(rows)):
        if not alive[index]:
            continue
        low = np.maximum(left_top[index + 1 :], left_top[index])
        high = np.minimum(right_bottom[index + 1 :], right_bottom[index])
        shared = (high - low).clip(0).prod(axis=1)
        union = area[index + 1 :] + area[index] - shared
        alive[index + 1 :] &= shared <= threshold * np.maximum(union, 1e-9)
    return rows[alive]
