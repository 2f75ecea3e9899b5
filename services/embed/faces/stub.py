"""A stand-in for the networks, for tests of load and of everything around them. It recognises nobody.

Every picture has one face in its middle; the template is drawn from a digest of the picture, so the same bytes always
give the same template and another picture gives one that is not alike. Its model_id begins with "stub", so that its
templates never meet real ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from time import perf_counter

import numpy as np

from services.embed.faces.analyser import PictureJob, PictureResult, chosen_faces, described_face
from services.embed.faces.detector import Detection
from services.embed.faces.geometry import Points
from services.embed.faces.recogniser import REFERENCE_POINTS, SIDE, alignment
from services.embed.ports import Pixels, Tensor

STUB_NAME = "stub"
STUB_DIMENSION = 128
_SHARE = 0.5  # of the picture's shorter side


class StubAnalyser:
    """The same results as FaceAnalyser in form."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id

    def warm_up(self) -> None:
        """Nothing is loaded."""

    def analyse(self, jobs: Sequence[PictureJob]) -> list[PictureResult]:
        return [self._result(job, len(jobs)) for job in jobs]

    def _result(self, job: PictureJob, batch: int) -> PictureResult:
        started = perf_counter()
        face = _face_in_the_middle(job.picture.width, job.picture.height)
        crop = job.picture.aligned(alignment(face.landmarks), SIDE)
        vector = _vector(crop, self._model_id) if chosen_faces(job.selection, job.face_index, [face]) else None
        described = described_face(job.picture, face, crop, vector, self._model_id)
        return PictureResult((described,), (perf_counter() - started) * 1000, 0.0, batch if vector is not None else 0)


def _face_in_the_middle(width: int, height: int) -> Detection:
    side = _SHARE * min(width, height)
    corner = np.array([(width - side) / 2, (height - side) / 2])
    landmarks: Points = REFERENCE_POINTS * (side / SIDE) + corner
    return Detection(box=np.array([*corner, side, side]), landmarks=landmarks, score=1.0)


def _vector(crop: Pixels, model_id: str) -> Tensor:
    digest = hashlib.blake2b(crop.tobytes(), digest_size=8, key=hashlib.sha256(model_id.encode()).digest())
    seed = int.from_bytes(digest.digest(), "little")
    vector = np.random.default_rng(seed).standard_normal(STUB_DIMENSION).astype(np.float32)
    unit: Tensor = vector / np.linalg.norm(vector)
    return unit
