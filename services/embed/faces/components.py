"""Quality components that are read from pixels, each a monotone function of one measurement, 0 (worst) to 100 (best).

The aligned square shows every face the same size and upright (recogniser.REFERENCE_POINTS), so that eyes, cheeks and
mouth lie at fixed places. `eyes_open`, `mouth_closed`, `expression` and `visibility` are read from those places alone:
they are hints for advice, not measurements of the standard, which asks for more landmarks than the five there are.
"""

from __future__ import annotations

import cv2
import numpy as np

from services.embed.faces.geometry import Points
from services.embed.ports import Pixels

_SHARPNESS_HALF = 150.0  # Laplacian variance that scores 50
# Places in the aligned square, as (rows, columns).
_EYES = ((slice(46, 58), slice(32, 45)), (slice(46, 58), slice(67, 80)))
_EYE_MIDDLES = ((slice(44, 60), slice(35, 42)), (slice(44, 60), slice(70, 77)))
_CHEEKS = ((slice(64, 76), slice(30, 44)), (slice(64, 76), slice(68, 82)))
_MOUTH = (slice(84, 106), slice(50, 62))
_LOWER_FACE = (slice(82, 104), slice(42, 70))
_MOUTH_WIDTH = 0.83  # of the distance between the eyes, with the face at rest
_BLOCK_PX = 8
_SMALLEST_BACKGROUND = 64  # pixels of it, below which nothing is said


def sharpness(grey: Pixels) -> float:
    """Variance of the Laplacian."""
    variance = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return 100 * variance / (variance + _SHARPNESS_HALF)


def illumination(grey: Pixels) -> float:
    """Mean grey near the middle, both halves alike."""
    half = grey.shape[1] // 2
    left, right = float(grey[:, :half].mean()), float(grey[:, half:].mean())
    exposure = 1 - abs((left + right) / 2 - 127.5) / 127.5
    evenness = 1 - abs(left - right) / max(left + right, 1e-6)
    return percent(min(exposure, evenness))


def contrast(grey: Pixels) -> float:
    """Standard deviation of grey; full from 60 on."""
    return percent(float(grey.std()) / 60)


def compression(blockiness: float, inter_eye_px: float) -> float:
    """By the roughness across the borders of 8 x 8 blocks (Picture.blockiness): 100 without blocks, 50 where it is
    twice that elsewhere and the eyes lie six blocks apart. Blocks hurt by how large they are beside the face.
    """
    harm = max(0.0, blockiness - 1) * 6 * _BLOCK_PX / max(inter_eye_px, 1e-6)
    return 100 / (1 + harm * harm)


def eyes_open(grey: Pixels) -> float:
    """Rows that are dark in the middle of the eye: an iris is tall, the line of a shut eye is not. The worse eye."""
    return min(_dark_rows(grey[place]) for place in _EYE_MIDDLES)


def _dark_rows(patch: Pixels) -> float:
    rows = patch.mean(axis=1)
    bright, dark = float(np.percentile(rows, 80)), float(rows.min())
    if bright - dark < 6:  # nothing there that could be an eye
        return 0.0
    return percent((float((rows < (bright + dark) / 2).sum()) - 1) / 5)


def mouth_closed(grey: Pixels) -> float:
    """Height of what is much darker than the cheeks in the middle of the mouth: lips at rest leave a line."""
    cheeks = float(np.median([np.median(grey[place]) for place in _CHEEKS]))
    rows = grey[_MOUTH].mean(axis=1)
    return percent(1 - (float((rows < 0.55 * cheeks).sum()) - 2) / 10)


def expression(landmarks: Points, closed: float) -> float:
    """Near the width of a mouth at rest, and closed. A smile widens it."""
    eyes = float(np.hypot(*(landmarks[1] - landmarks[0])))
    mouth = float(np.hypot(*(landmarks[4] - landmarks[3])))
    width = percent(1 - max(0.0, abs(mouth / max(eyes, 1e-6) - _MOUTH_WIDTH) - 0.05) / 0.4)
    return min(width, closed)


def visibility(aligned: Pixels) -> float:
    """Whether eyes and mouth look like parts of a face: eyes not much darker than the cheeks (dark glasses), the lower
    face of the cheeks' colour (mask, scarf, hand). The worse of the two. A full beard scores less, too.
    """
    colours = cv2.cvtColor(aligned, cv2.COLOR_BGR2LAB).astype(np.float32)
    cheeks = np.median(np.concatenate([colours[place].reshape(-1, 3) for place in _CHEEKS]), axis=0)
    eyes = min(float(np.median(colours[place][..., 0])) for place in _EYES)
    mouth = np.median(colours[_LOWER_FACE].reshape(-1, 3), axis=0)
    eyes_seen = percent((eyes / max(float(cheeks[0]), 1.0) - 0.2) / 0.4)
    # Lightness counts half: shadow and beard change it, cloth changes the colour too.
    distance = float(np.hypot(0.5 * (mouth[0] - cheeks[0]), np.hypot(*(mouth[1:] - cheeks[1:]))))
    return min(eyes_seen, percent(1 - (distance - 10) / 30))


def background(chip: Pixels) -> float:
    """Evenness of what is beside and above the head in a chip three boxes wide: grey levels from pixel to pixel, and
    overall. 100 when there is too little of it to say anything.
    """
    grey = cv2.cvtColor(chip, cv2.COLOR_BGR2GRAY).astype(np.float32)
    height, width = grey.shape
    side, rows = width // 5, slice(0, height * 6 // 10)
    strips = [grey[rows, :side], grey[rows, width - side :]]
    if min(strip.size for strip in strips) < _SMALLEST_BACKGROUND:
        return 100.0
    roughness = float(np.mean([np.abs(np.diff(strip, axis=1)).mean() for strip in strips]))
    spread = float(np.concatenate([strip.ravel() for strip in strips]).std())
    return min(percent(1 - roughness / 12), percent(1 - spread / 70))


def percent(share: float) -> float:
    return 100 * min(1.0, max(0.0, share))
