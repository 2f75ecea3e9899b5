"""YuNet: faces with five landmarks, the result of OpenCV's FaceDetectorYN without OpenCV's runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from services.embed.faces.geometry import Points
from services.embed.ports import ModelSession, Pixels, Tensor

STRIDES = (8, 16, 32)
_DIVISOR = 32  # the network halves its input five times


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face: box (x, y, width, height) and five landmarks in pixels, score in [0, 1]."""

    box: np.ndarray
    landmarks: Points
    score: float


class YuNet:
    """Finds faces from about 10 to 400 pixels wide; larger ones need a reduced picture."""

    def __init__(self, session: ModelSession, *, score_threshold: float, nms_threshold: float) -> None:
        self._session = session
        self._score_threshold = score_threshold
        self._nms_threshold = nms_threshold

    def detect(self, picture: Pixels) -> list[Detection]:
        """Faces of one upright BGR picture, best score first."""
        blob = _padded_blob(picture)
        outputs = self._session.run(blob)
        rows = _decode(outputs, blob.shape[2], blob.shape[3], self._score_threshold)
        return [
            Detection(box=row[:4], landmarks=row[4:14].reshape(5, 2), score=float(row[14]))
            for row in suppress(rows, self._nms_threshold)
        ]


def _padded_blob(picture: Pixels) -> Tensor:
    """Channels first, as float, with black to the right and below up to a multiple of the divisor."""
    height, width = picture.shape[:2]
    bottom, right = -height % _DIVISOR, -width % _DIVISOR
    if bottom or right:
        picture = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))  # type: ignore[assignment]
    return cv2.dnn.blobFromImage(picture)  # type: ignore[return-value]


def _decode(outputs: Mapping[str, Tensor], height: int, width: int, threshold: float) -> np.ndarray:
    """Rows of x, y, width, height, ten landmark coordinates, score: anchors of all strides over the threshold."""
    found = []
    for stride in STRIDES:
        columns = width // stride
        likely = outputs[f"cls_{stride}"][0, :, 0].clip(0, 1) * outputs[f"obj_{stride}"][0, :, 0].clip(0, 1)
        score = np.sqrt(likely)
        index = np.flatnonzero(score >= threshold)
        if index.size:
            column_row = np.stack([index % columns, index // columns], axis=1).astype(np.float32)
            found.append(_rows(outputs, stride, index, column_row, score[index]))
    return np.concatenate(found) if found else np.empty((0, 15), np.float64)


def _rows(
    outputs: Mapping[str, Tensor], stride: int, index: np.ndarray, anchors: np.ndarray, score: np.ndarray
) -> np.ndarray:
    box, points = outputs[f"bbox_{stride}"][0, index], outputs[f"kps_{stride}"][0, index]
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
