"""Plane geometry of faces: orientation, scaling and alignment as 2 x 3 affine matrices (x, y) -> (x, y).

Coordinates are OpenCV's: the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from services.embed.ports import Pixels

Affine = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]

# How EXIF orientations 2 to 8 are made with OpenCV: an optional transposition, then a flip.
_FLIPS: dict[int, int | None] = {2: 1, 3: -1, 4: 0, 5: None, 6: 1, 7: -1, 8: 0}


def upright_from_stored(orientation: int, width: int, height: int) -> Affine:
    """Where a pixel of the stored picture (width x height) lies in the upright one."""
    right, bottom = width - 1.0, height - 1.0
    matrices = {
        1: [[1, 0, 0], [0, 1, 0]],
        2: [[-1, 0, right], [0, 1, 0]],
        3: [[-1, 0, right], [0, -1, bottom]],
        4: [[1, 0, 0], [0, -1, bottom]],
        5: [[0, 1, 0], [1, 0, 0]],
        6: [[0, -1, bottom], [1, 0, 0]],
        7: [[0, -1, bottom], [-1, 0, right]],
        8: [[0, 1, 0], [-1, 0, right]],
    }
    return np.array(matrices[orientation], dtype=np.float64)


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """The picture with its EXIF orientation applied."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = cv2.transpose(pixels)  # type: ignore[assignment]
    flip = _FLIPS[orientation]
    return pixels if flip is None else cv2.flip(pixels, flip)  # type: ignore[return-value]


def compose(outer: Affine, inner: Affine) -> Affine:
    """First `inner`, then `outer`."""
    result = outer[:, :2] @ inner
    result[:, 2] += outer[:, 2]
    return result


def similarity(source: Points, target: Points) -> Affine:
    """Rotation, uniform scale and shift that bring `source` closest to `target` (least squares; Umeyama 1991)."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    p, q = source - source_mean, target - target_mean
    spread = max(float((p * p).sum()), 1e-12)
    cosine = float((p * q).sum()) / spread
    sine = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / spread
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, target_mean - linear @ source_mean])
