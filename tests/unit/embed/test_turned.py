"""Faces that lie on their side or stand on their head, and faces in the dark."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.embed.faces.analyser import FaceAnalyser, PictureJob
from services.embed.faces.detector import Detection
from services.embed.faces.finder import FaceFinder
from services.embed.faces.picture import Picture
from services.embed.ports import Pixels, Selection
from services.shared.biometric import DetectedFace
from tests.accuracy.quality_data import in_process_analyser
from tests.support.faces import DevelopmentFaces


@pytest.fixture(scope="module")
def parts(prepared_models: object) -> tuple[FaceAnalyser, FaceFinder]:
    """The prepared models are there."""
    return in_process_analyser()


@pytest.fixture(scope="module")
def pictures(faces: DevelopmentFaces) -> list[Pixels]:
    read = (cv2.imread(str(still.path)) for still in faces.split("gallery")[5:120:23])
    return [pixels for pixels in read if pixels is not None]  # type: ignore[misc]


def _largest(analyser: FaceAnalyser, pixels: Pixels, orientation: int = 1) -> DetectedFace:
    [result] = analyser.analyse([PictureJob(Picture(pixels, orientation), Selection.LARGEST)])
    return next(face for face in result.faces if face.template)


def _turned(pixels: Pixels, degrees: int) -> Pixels:
    height, width = pixels.shape[:2]
    side = int(np.hypot(height, width)) + 2
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    matrix[:, 2] += [(side - width) / 2, (side - height) / 2]
    return cv2.warpAffine(pixels, matrix, (side, side), borderValue=(127, 127, 127))  # type: ignore[return-value]


@pytest.mark.parametrize("degrees", [60, 90, 180, 225, 300])
def test_a_turned_face_has_the_template_of_the_upright_one(
    parts: tuple[FaceAnalyser, FaceFinder], pictures: list[Pixels], degrees: int
) -> None:
    analyser, _ = parts
    alike = []
    for pixels in pictures:
        upright, turned = _largest(analyser, pixels), _largest(analyser, _turned(pixels, degrees))
        assert upright.template is not None
        assert turned.template is not None
        alike.append(float(upright.template.vector @ turned.template.vector))
    assert np.median(alike) > 0.75, alike


def test_one_who_lies_among_others_who_stand_is_found(
    parts: tuple[FaceAnalyser, FaceFinder], pictures: list[Pixels]
) -> None:
    _, finder = parts
    square = [cv2.resize(pixels, (240, 240)) for pixels in pictures[:4]]
    standing = len(finder.find(Picture(np.hstack(square), 1)))
    for turn in (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180):
        row = np.hstack([*square[:2], cv2.rotate(square[2], turn), square[3]])
        faces = finder.find(Picture(row, 1))
        assert len(faces) == standing
        assert any(480 <= face.box[0] + face.box[2] / 2 < 720 for face in faces)


def test_faces_that_the_detector_is_sure_of_stay_as_they_are(
    parts: tuple[FaceAnalyser, FaceFinder], pictures: list[Pixels]
) -> None:
    _, finder = parts
    for pixels in pictures:
        picture = Picture(pixels, 1)
        face = max(finder.find(picture), key=lambda each: each.score)
        assert finder.settled(picture, face) is face
        # Nor does an upright face change of which the detector is in doubt.
        doubted = Detection(face.box, face.landmarks, 0.9)
        assert finder.settled(picture, doubted) is doubted


def test_a_face_in_the_dark_is_found(parts: tuple[FaceAnalyser, FaceFinder], pictures: list[Pixels]) -> None:
    _, finder = parts
    found = [finder.find(Picture((pixels * 0.06).astype(np.uint8), 1)) for pixels in pictures]
    assert sum(bool(faces) for faces in found) >= len(pictures) - 1


def test_no_face_is_found_in_noise_however_it_is_turned(parts: tuple[FaceAnalyser, FaceFinder]) -> None:
    _, finder = parts
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 255, (300, 400, 3), np.uint8)
        assert finder.find(Picture(cv2.GaussianBlur(noise, (0, 0), 3 * seed + 0.1), 1)) == []  # type: ignore[arg-type]
