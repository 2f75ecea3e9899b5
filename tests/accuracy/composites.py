"""Composites, drawings and photographs of pictures made by computer, beside those of signals.py: faces of several
people put together, and screens and prints as a camera sees them from the side or from further away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle

import cv2
import numpy as np

from services.embed.faces.analyser import FaceAnalyser, PictureJob
from services.embed.faces.picture import Picture
from services.embed.ports import Pixels, Selection
from tests.accuracy.naive import decode

Points = np.ndarray
Make = Callable[[Pixels], Pixels]
_GENERATOR = np.random.default_rng(8)


class Composer:
    """Puts features of other people into a face: each picture gets the next donors."""

    def __init__(self, analyser: FaceAnalyser, donors: list[bytes]) -> None:
        self._analyser = analyser
        found = ((pixels, self._landmarks(pixels)) for pixels in map(decode, donors))
        self._donors = cycle([(pixels, points) for pixels, points in found if points is not None])

    def makers(self) -> Mapping[str, Make]:
        return {
            "face of another put in, blended": self.swapped,
            "face of another put in, feathered": self.feathered,
            "two faces half and half": self.morphed,
            "eyes, nose and mouth of three people": self.photofit,
        }

    def swapped(self, pixels: Pixels) -> Pixels:
        """As with an application: the inner face of another, its light and colours brought near by Poisson blending."""
        other, points, mask = self._other(pixels, ("face",))
        if points is None or mask.max() == 0:
            return pixels
        rows, columns = np.nonzero(mask)
        centre = (int(columns.min() + columns.max()) // 2, int(rows.min() + rows.max()) // 2)
        return np.asarray(cv2.seamlessClone(other, pixels, mask, centre, cv2.NORMAL_CLONE), np.uint8)

    def feathered(self, pixels: Pixels) -> Pixels:
        other, _points, mask = self._other(pixels, ("face",))
        return _laid(pixels, other, mask)

    def morphed(self, pixels: Pixels) -> Pixels:
        """The mean of two faces, as for a document that two people want to use."""
        other, _points, mask = self._other(pixels, ("face",))
        half = cv2.addWeighted(pixels, 0.5, other, 0.5, 0)
        return _laid(pixels, np.asarray(half, np.uint8), mask)

    def photofit(self, pixels: Pixels) -> Pixels:
        made = pixels
        for part in ("eyes", "nose", "mouth"):
            other, points, mask = self._other(pixels, (part,))
            if points is not None:
                made = _laid(made, other, mask)
        return made

    def _other(self, pixels: Pixels, parts: tuple[str, ...]) -> tuple[Pixels, Points | None, np.ndarray]:
        """The next donor, moved so that its landmarks lie on this face's; and where the parts are."""
        points = self._landmarks(pixels)
        nothing = np.zeros(pixels.shape[:2], np.uint8)
        if points is None:
            return pixels, None, nothing
        donor, donors = next(self._donors)
        matrix, _ = cv2.estimateAffinePartial2D(donors, points)
        if matrix is None:  # whatever the stubs say
            return pixels, None, nothing  # type: ignore[unreachable]
        size = (pixels.shape[1], pixels.shape[0])
        moved = cv2.warpAffine(donor, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        eye_px = float(np.linalg.norm(points[0] - points[1]))
        for part in parts:
            centre, across, down = _place(part, points, eye_px)
            cv2.ellipse(nothing, centre, (max(1, round(across)), max(1, round(down))), 0, 0, 360, 255, -1)
        nothing[[0, -1]], nothing[:, [0, -1]] = 0, 0
        return np.asarray(moved, np.uint8), points, nothing

    def _landmarks(self, pixels: Pixels) -> Points | None:
        [result] = self._analyser.analyse([PictureJob(Picture(np.ascontiguousarray(pixels), 1), Selection.LARGEST)])
        largest = max(result.faces, key=lambda face: face.box.width * face.box.height, default=None)
        return None if largest is None else np.asarray(largest.landmarks, np.float32).reshape(5, 2)


def _place(part: str, points: Points, eye_px: float) -> tuple[tuple[int, int], float, float]:
    """Centre and half axes of a part, from the landmarks: eyes, nose, corners of the mouth."""
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    middle, across, down = {
        "face": ((eyes + mouth) / 2, 1.0 * eye_px, 1.15 * eye_px),
        "eyes": (eyes, 0.95 * eye_px, 0.32 * eye_px),
        "nose": (points[2], 0.35 * eye_px, 0.4 * eye_px),
        "mouth": (mouth, 0.55 * eye_px, 0.3 * eye_px),
    }[part]
    return (round(float(middle[0])), round(float(middle[1]))), across, down


def _laid(below: Pixels, above: Pixels, mask: np.ndarray) -> Pixels:
    """With a soft edge."""
    soft = cv2.GaussianBlur(mask, (0, 0), max(1.0, mask.shape[1] / 80)).astype(np.float32)[..., None] / 255
    return np.asarray(below * (1 - soft) + above * soft, np.uint8)


def charcoal(pixels: Pixels) -> Pixels:
    """Dark strokes on white paper: the extended difference of Gaussians (Winnemoeller et al., 2012)."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).astype(np.float32)
    sigma = max(0.8, min(grey.shape) / 300)
    strokes = 21 * cv2.GaussianBlur(grey, (0, 0), sigma) - 20 * cv2.GaussianBlur(grey, (0, 0), 1.6 * sigma)
    drawn = np.where(strokes >= 110, 255.0, 255 * (1 + np.tanh(0.04 * (strokes - 110))))
    return np.asarray(cv2.cvtColor(drawn.clip(0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR), np.uint8)


def comic(pixels: Pixels) -> Pixels:
    """Smoothed colours with dark outlines."""
    smooth = cv2.edgePreservingFilter(pixels, flags=cv2.RECURS_FILTER, sigma_s=50, sigma_r=0.4)
    edges = cv2.adaptiveThreshold(
        cv2.medianBlur(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), 5),
        255,
        cv2.ADAPTIVE_THRESH_MEAN_C,
        cv2.THRESH_BINARY,
        9,
        6,
    )
    return np.asarray(cv2.bitwise_and(smooth, smooth, mask=edges), np.uint8)


def from_the_side(made: Make) -> Make:
    """The same seen by a camera that stands to the side of it."""

    def seen(pixels: Pixels) -> Pixels:
        picture = made(pixels)
        height, width = picture.shape[:2]
        shift = _GENERATOR.uniform(0.04, 0.1)
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        turned = corners + np.array([[0, 0], [0, shift * height], [0, -shift * height], [0, 0]], np.float32)
        matrix = cv2.getPerspectiveTransform(corners, turned)
        return np.asarray(
            cv2.warpPerspective(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8
        )

    return seen


def from_further_away(made: Make, factor: float = 0.5) -> Make:
    """The same with so few pixels that dots and stripes are hardly told apart any more."""

    def seen(pixels: Pixels) -> Pixels:
        return np.asarray(cv2.resize(made(pixels), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)

    return seen
