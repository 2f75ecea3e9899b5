"""SFace: unit vectors of aligned faces, the result of OpenCV's FaceRecognizerSF without OpenCV's runtime."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from services.embed.faces.geometry import Affine, Points, similarity
from services.embed.ports import ModelSession, Pixels, Tensor
from services.shared.errors import ConfigurationError

SIDE = 112
# Where the five landmarks lie in the aligned square (ArcFace's reference points, as FaceRecognizerSF has them).
REFERENCE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

# What a kind of network is shown: (pixels - mean) * scale.
INPUT_SCALING = {"sface": (1.0, 0.0), "arcface": (1 / 127.5, 127.5)}


def alignment(landmarks: Points) -> Affine:
    """Upright pixels -> aligned square."""
    return similarity(landmarks, REFERENCE_POINTS)


class Recogniser:
    """Templates of aligned BGR faces (SIDE x SIDE).

    SFace sees RGB from 0 to 255 and normalises inside the network; ArcFace networks see RGB from -1 to 1. With
    `takes_pixels` the session's network does that itself and is given the faces as they are.
    """

    def __init__(
        self,
        session: ModelSession,
        *,
        kind: str,
        dimension: int,
        max_batch_faces: int = 8,
        takes_pixels: bool = False,
    ) -> None:
        self._session = session
        self._dimension = dimension
        self._max_batch_faces = max_batch_faces
        self._scale, self._mean = INPUT_SCALING[kind]
        self._takes_pixels = takes_pixels

    def vectors(self, faces: Sequence[Pixels]) -> Tensor:
        """One unit vector a face, in batches that bound the memory of a crowd.

        Raises ConfigurationError when the network has another dimension than announced.
        """
        size = self._max_batch_faces
        return np.concatenate([self._batch(faces[start : start + size]) for start in range(0, len(faces), size)])

    def _batch(self, faces: Sequence[Pixels]) -> Tensor:
        (output,) = self._session.run(self._input(faces)).values()
        if output.shape != (len(faces), self._dimension):
            raise ConfigurationError(
                f"the recogniser gives {output.shape[1:]} values, the manifest says {self._dimension}",
                advice="Correct `dimension` in the model manifest.",
            )
        vectors: Tensor = output / np.linalg.norm(output, axis=1, keepdims=True)
        return vectors

    def _input(self, faces: Sequence[Pixels]) -> Pixels | Tensor:
        if self._takes_pixels:
            return np.stack(faces)
        mean = (self._mean,) * 3
        blob = cv2.dnn.blobFromImages(list(faces), self._scale, (SIDE, SIDE), mean, swapRB=True)
        return blob  # type: ignore[return-value]
