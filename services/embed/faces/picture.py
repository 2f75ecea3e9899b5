"""A decoded picture as the networks need it: reduced and upright for the detector, aligned for the recogniser.

The full-size pixels are never turned or copied: orientation is part of every transformation.
"""

from __future__ import annotations

import cv2
import numpy as np

from services.embed.faces.geometry import Affine, Points, compose, turn_upright, upright_from_stored
from services.embed.ports import Pixels


class Picture:
    """`pixels` as stored (height x width x BGR) and the EXIF orientation that turns them upright."""

    def __init__(self, pixels: Pixels, orientation: int) -> None:
        self._pixels = pixels
        self._orientation = orientation
        height, width = pixels.shape[:2]
        self._upright = upright_from_stored(orientation, width, height)
        self.width, self.height = (width, height) if orientation < 5 else (height, width)

    def reduced(self, scale: float) -> Pixels:
        """The upright picture scaled by `scale`; each side is at least one pixel."""
        if scale == 1.0:
            return turn_upright(self._pixels, self._orientation)
        height, width = self._pixels.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return turn_upright(_shrink(self._pixels, size), self._orientation)

    def aligned(self, alignment: Affine, side: int) -> Pixels:
        """The square of `side` pixels that `alignment` (upright pixels -> square) cuts out."""
        return cv2.warpAffine(  # type: ignore[return-value]
            self._pixels, compose(alignment, self._upright), (side, side), flags=cv2.INTER_LINEAR
        )

    def chip(self, centre: Points, side_px: float, side: int) -> Pixels:
        """The upright square of `side_px` pixels around a point, as `side` pixels; a square that reaches over the edge
        is moved inside, and cut where the picture is smaller.
        """
        width, height = min(side_px, self.width), min(side_px, self.height)
        left = float(np.clip(centre[0] - width / 2, 0, self.width - width))
        top = float(np.clip(centre[1] - height / 2, 0, self.height - height))
        scale = side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        cut = np.array([[scale, 0.0, -left * scale], [0.0, scale, -top * scale]])
        # Without averaging, a large face would alias; twice the size, then pairs averaged, is near enough for the eye.
        doubled = (size[0] * 2, size[1] * 2) if scale < 1 else size
        pixels = cv2.warpAffine(self._pixels, compose(cut * (doubled[0] / size[0]), self._upright), doubled)
        return pixels if doubled == size else _resized(pixels, size, cv2.INTER_AREA)  # type: ignore[return-value, arg-type]

    def window(self, centre: Points) -> Pixels:
        """At most 256 x 256 of the stored pixels, unscaled and on the grid of 8 x 8 blocks, around an upright point."""
        height, width = self._pixels.shape[:2]
        inside = np.linalg.solve(self._upright[:, :2], centre - self._upright[:, 2]).clip(0, (width - 1, height - 1))
        left, top = (max(0, int(at) - _WINDOW_PX // 2) // 8 * 8 for at in inside)
        return self._pixels[top : top + _WINDOW_PX, left : left + _WINDOW_PX]

    def blockiness(self, centre: Points) -> float:
        """How much rougher the picture is across the borders of 8 x 8 blocks than elsewhere, in a window of the stored
        pixels around an upright point: about 1 without compression, 1.3 and more where JPEG blocks show.
        """
        grey = cv2.cvtColor(self.window(centre), cv2.COLOR_BGR2GRAY).astype(np.int16)
        return (_border_ratio(grey) + _border_ratio(grey.T)) / 2


_WINDOW_PX = 256


def _border_ratio(grey: np.ndarray) -> float:
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    is_border = np.arange(len(steps)) % 8 == 7
    if not is_border.any():
        return 1.0
    # Half a grey level on both sides, so that a blank picture has no blocks.
    return float((steps[is_border].mean() + 0.5) / (steps[~is_border].mean() + 0.5))


def _shrink(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Fewer pixels without aliasing that would move a landmark, and without averaging all of a large picture, which
    costs more than detection: first near the size, then exactly, one of the two by averaging pairs.
    """
    ratio = min(pixels.shape[1] / size[0], pixels.shape[0] / size[1])
    if ratio < 2:
        return _resized(pixels, size, cv2.INTER_LINEAR)
    if ratio < 4:
        half = (pixels.shape[1] // 2, pixels.shape[0] // 2)
        return _resized(_resized(pixels, half, cv2.INTER_AREA), size, cv2.INTER_LINEAR)
    return _resized(_resized(pixels, (size[0] * 2, size[1] * 2), cv2.INTER_LINEAR), size, cv2.INTER_AREA)


def _resized(pixels: Pixels, size: tuple[int, int], interpolation: int) -> Pixels:
    return cv2.resize(pixels, size, interpolation=interpolation)  # type: ignore[return-value]
