"""From pixels to faces with templates: what one inference worker does with a batch of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

import cv2
import numpy as np

from services.embed.faces.detector import Detection
from services.embed.faces.finder import FaceFinder
from services.embed.faces.landmarks import LandmarkRefiner
from services.embed.faces.picture import Picture
from services.embed.faces.quality import inter_eye_px, measure_quality
from services.embed.faces.recogniser import SIDE, alignment
from services.embed.faces.signals import measure_signals
from services.embed.faces.templates import ENLARGED, SMALL_INTER_EYE_PX, VISIBLE_BLOCKS, AlignedFace, Templater
from services.embed.ports import Pixels, Selection, Tensor
from services.embed.settings import Mirror
from services.shared.biometric import Box, DetectedFace, FaceTemplate

_SURROUNDINGS, _SURROUNDINGS_PX = 3.0, 96  # boxes of the face, pixels
_CHIP_ROOM, _CHIP_PX = 1.6, 160


@dataclass(frozen=True, slots=True)
class PictureJob:
    """A picture and which of its faces get a template."""

    picture: Picture
    selection: Selection
    face_index: int = 0
    # Of pictures in which nothing is found at first, see FaceFinder.
    is_thorough: bool = True


@dataclass(frozen=True, slots=True)
class PictureResult:
    """Faces in reading order, and the time of each stage. `batch_faces`: faces templated together with these."""

    faces: tuple[DetectedFace, ...]
    detect_ms: float
    template_ms: float
    batch_faces: int


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    job: PictureJob
    detections: list[Detection]
    crops: list[Pixels]
    chosen: dict[int, AlignedFace]
    detect_ms: float


class Analyser(Protocol):
    """What an inference worker runs."""

    def warm_up(self) -> None:
        """Everything that the first caller should not wait for."""
        ...

    def analyse(self, jobs: Sequence[PictureJob]) -> list[PictureResult]:
        """One result a job, in their order."""
        ...


class FaceAnalyser:
    """Detects, measures quality, and templates the chosen faces of several pictures in one batch."""

    def __init__(
        self, finder: FaceFinder, refiner: LandmarkRefiner, templater: Templater, model_id: str, mirror: Mirror
    ) -> None:
        self._finder = finder
        self._refiner = refiner
        self._templater = templater
        self._model_id = model_id
        self._mirror = mirror

    def warm_up(self) -> None:
        """Run both networks once, so that the first caller does not pay for their set-up."""
        grey = np.full((480, 640, 3), 127, np.uint8)
        self.analyse([PictureJob(Picture(grey, 1), Selection.NONE)])
        for is_mirrored in (False, True):
            self._templater.templates([AlignedFace(grey[:SIDE, :SIDE], 1.0, is_mirrored)])

    def analyse(self, jobs: Sequence[PictureJob]) -> list[PictureResult]:
        found = [self._find(job) for job in jobs]
        started = perf_counter()
        aligned = [face for item in found for face in item.chosen.values()]
        vectors = iter(self._templater.templates(aligned))
        by_picture = [{index: next(vectors) for index in item.chosen} for item in found]
        template_ms = (perf_counter() - started) * 1000
        return [
            PictureResult(
                faces=self._faces(item, templates),
                detect_ms=item.detect_ms,
                template_ms=template_ms if item.chosen else 0.0,
                batch_faces=len(aligned),
            )
            for item, templates in zip(found, by_picture, strict=True)
        ]

    def _find(self, job: PictureJob) -> _Found:
        started = perf_counter()
        detections = self._finder.find(job.picture, is_thorough=job.is_thorough)
        chosen = chosen_faces(job.selection, job.face_index, detections)
        settled = [(job.picture, self._finder.settled(job.picture, detections[index])) for index in chosen]
        refined = self._refiner.refine_all(settled)
        for index, face in zip(chosen, refined, strict=True):
            detections[index] = face
        alignments = [alignment(face.landmarks) for face in detections]
        crops = [job.picture.aligned(matrix, SIDE) for matrix in alignments]
        aligned = {
            index: self._aligned(job, detections[index], crops[index], float(np.hypot(*alignments[index][0, :2])))
            for index in chosen
        }
        return _Found(job, detections, crops, aligned, (perf_counter() - started) * 1000)

    def _aligned(self, job: PictureJob, face: Detection, crop: Pixels, enlargement: float) -> AlignedFace:
        return AlignedFace(
            crop,
            enlargement,
            is_mirrored=self._is_mirrored(job.selection, face),
            is_blocky=enlargement >= ENLARGED and job.picture.blockiness(face.landmarks.mean(axis=0)) >= VISIBLE_BLOCKS,
        )

    def _is_mirrored(self, selection: Selection, face: Detection) -> bool:
        if self._mirror == "reference":
            return selection is Selection.LARGEST or inter_eye_px(face.landmarks) < SMALL_INTER_EYE_PX
        return self._mirror == "always"

    def _faces(self, found: _Found, vectors: dict[int, Tensor]) -> tuple[DetectedFace, ...]:
        selection = found.job.selection
        is_to_be_picked = selection is Selection.SOLE and len(found.detections) > 1
        described = (
            described_face(found.job.picture, face, crop, vectors.get(index), self._model_id)
            for index, (face, crop) in enumerate(zip(found.detections, found.crops, strict=True))
        )
        if not is_to_be_picked and selection is not Selection.ALL_WITH_CHIPS:
            return tuple(described)
        return tuple(replace(face, chip=chip_of(found.job.picture, face.box)) for face in described)


def described_face(
    picture: Picture, face: Detection, crop: Pixels, vector: Tensor | None, model_id: str
) -> DetectedFace:
    """A detection with everything that is measured about it; `crop` is its aligned square."""
    x, y, width, height = (float(value) for value in face.box)
    middle = face.landmarks.mean(axis=0)
    blockiness = picture.blockiness(middle)
    return DetectedFace(
        box=Box(x, y, width, height),
        landmarks=tuple((float(point[0]), float(point[1])) for point in face.landmarks),
        detection_score=face.score,
        inter_eye_px=inter_eye_px(face.landmarks),
        quality=measure_quality(
            crop,
            face.landmarks,
            face.score,
            blockiness=blockiness,
            surroundings=picture.chip(middle, _SURROUNDINGS * max(width, height), _SURROUNDINGS_PX),
        ),
        template=None if vector is None else FaceTemplate(vector, model_id),
        signals=() if vector is None else measure_signals(picture.window(middle), blockiness),
    )


def chip_of(picture: Picture, box: Box) -> bytes:
    """A JPEG of a face with some room around it, made from pixels: nothing of the file that came is in it."""
    middle = np.array([box.x + box.width / 2, box.y + box.height / 2])
    pixels = picture.chip(middle, _CHIP_ROOM * max(box.width, box.height), _CHIP_PX)
    _done, encoded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, 85))
    return encoded.tobytes()


def chosen_faces(selection: Selection, face_index: int, faces: Sequence[Detection]) -> list[int]:
    """Which faces get a template. An index that is not there chooses none."""
    if selection in {Selection.ALL, Selection.ALL_WITH_CHIPS}:
        return list(range(len(faces)))
    if selection is Selection.SOLE:
        return [0] if len(faces) == 1 else []
    if selection is Selection.BY_INDEX:
        return [face_index] if face_index < len(faces) else []
    if selection is Selection.LARGEST and faces:
        return [max(range(len(faces)), key=lambda index: _prominence(faces[index]))]
    return []


def _prominence(face: Detection) -> float:
    """Area weighed by the detector's score: a large face cut off by the edge is not what the picture was taken of."""
    return float(face.box[2] * face.box[3]) * face.score
