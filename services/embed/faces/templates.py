"""Templates of aligned faces: what is done around the recogniser so that its vectors compare better.

1. Where a face has to be enlarged by a fifth or more and compression has left visible blocks, it is smoothed a little.
   Without blocks there is nothing to take away but detail: smoothing then loses what it wins here.
2. Where it is asked for, the mirrored face is templated too, and the two unit vectors are added.
3. The mean vector of a cohort of many people is taken away: what all faces have in common tells nobody apart.
4. The result is a unit vector again, so that comparison stays a plain dot product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from services.embed.faces.recogniser import Recogniser
from services.embed.ports import Pixels, Tensor

ENLARGED = 1.2
# Of Picture.blockiness: few uncompressed pictures reach it, and nearly all of JPEG quality 20 do.
VISIBLE_BLOCKS = 1.25
_SMOOTHING_PX = 0.6  # standard deviation, in pixels of the original
# Faces with fewer pixels than this between the eyes are always templated mirrored as well.
SMALL_INTER_EYE_PX = 32.0


@dataclass(frozen=True, slots=True, eq=False)
class AlignedFace:
    """The aligned square, by how much it was enlarged, whether its mirror image counts too, and whether the picture
    shows compression blocks."""

    pixels: Pixels
    enlargement: float
    is_mirrored: bool
    is_blocky: bool = False


class Templater:
    """Unit vectors of aligned faces. `cohort_mean` has the recogniser's dimension; zeros leave step 3 out."""

    def __init__(self, recogniser: Recogniser, cohort_mean: Tensor) -> None:
        self._recogniser = recogniser
        self._cohort_mean = cohort_mean

    def templates(self, faces: Sequence[AlignedFace]) -> list[Tensor]:
        views: list[Pixels] = []
        for face in faces:
            pixels = smoothed(face)
            views += [pixels, np.ascontiguousarray(pixels[:, ::-1])] if face.is_mirrored else [pixels]
        vectors = iter(self._recogniser.vectors(views) if views else ())
        return [self._template([next(vectors) for _ in range(1 + face.is_mirrored)]) for face in faces]

    def _template(self, views: Sequence[Tensor]) -> Tensor:
        whole = np.sum(views, axis=0)
        centred = whole / np.linalg.norm(whole) - self._cohort_mean
        template: Tensor = (centred / np.linalg.norm(centred)).astype(np.float32)
        return template


def smoothed(face: AlignedFace) -> Pixels:
    if face.enlargement < ENLARGED or not face.is_blocky:
        return face.pixels
    return cv2.GaussianBlur(face.pixels, (0, 0), _SMOOTHING_PX * face.enlargement)  # type: ignore[return-value]
