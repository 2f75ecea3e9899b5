"""What is done around the recogniser: looking again, smoothing, mirroring, and taking the cohort's mean away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from services.embed.adapters.onnxruntime_session import OnnxruntimeSession
from services.embed.faces.detector import Detection, YuNet
from services.embed.faces.landmarks import LandmarkRefiner
from services.embed.faces.picture import Picture
from services.embed.faces.recogniser import SIDE, Recogniser
from services.embed.faces.templates import VISIBLE_BLOCKS, AlignedFace, Templater, smoothed
from services.embed.models.cohort import cohort_mean, cohort_stamp
from services.embed.models.manifest import load_manifest
from services.embed.models.store import PreparedModel
from services.embed.ports import Pixels, Tensor


class _Averages:
    """A recogniser of two dimensions: mean brightness of the left and of the right half, as a unit vector."""

    def vectors(self, faces: Sequence[Pixels]) -> Tensor:
        halves = [[face[:, : SIDE // 2].mean(), face[:, SIDE // 2 :].mean()] for face in faces]
        raw = np.array(halves, np.float32) + 1e-3
        unit: Tensor = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        return unit


def _templater(mean: Sequence[float] = (0.0, 0.0)) -> Templater:
    return Templater(cast(Recogniser, _Averages()), np.array(mean, np.float32))


def _lopsided() -> Pixels:
    face = np.zeros((SIDE, SIDE, 3), np.uint8)
    face[:, : SIDE // 2] = 200
    return face


def test_a_mirrored_face_counts_both_ways() -> None:
    plain, mirrored = _templater().templates(
        [AlignedFace(_lopsided(), 1.0, is_mirrored=False), AlignedFace(_lopsided(), 1.0, is_mirrored=True)]
    )
    np.testing.assert_allclose(plain, [1, 0], atol=1e-4)
    np.testing.assert_allclose(mirrored, np.sqrt([0.5, 0.5]), atol=1e-4)


def test_the_mean_is_taken_away_and_the_result_is_a_unit_vector() -> None:
    (template,) = _templater((0.4, -0.8)).templates([AlignedFace(_lopsided(), 1.0, is_mirrored=False)])
    np.testing.assert_allclose(template, [0.6, 0.8], atol=1e-3)
    assert template.dtype == np.float32


def test_nothing_to_template_is_no_template() -> None:
    assert _templater().templates([]) == []


def test_only_an_enlarged_face_with_blocks_is_smoothed() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    assert smoothed(AlignedFace(noise, 1.0, is_mirrored=False, is_blocky=True)) is noise
    assert smoothed(AlignedFace(noise, 2.0, is_mirrored=False, is_blocky=False)) is noise
    assert smoothed(AlignedFace(noise, 2.0, is_mirrored=False, is_blocky=True)).std() < 0.5 * noise.std()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_compression_shows_as_blocks_whatever_the_orientation(some_faces: list[Path], orientation: int) -> None:
    plain: list[float] = []
    blocky: list[float] = []
    for path in some_faces:
        pixels = cv2.imread(str(path))
        assert pixels is not None
        small = cv2.resize(pixels, (150, 150), interpolation=cv2.INTER_AREA)
        squeezed = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], cv2.IMREAD_COLOR)
        for found, image in ((plain, small), (blocky, squeezed)):
            found.append(Picture(np.asarray(image, np.uint8), orientation).blockiness(np.array([75.0, 75.0])))
    assert max(np.quantile(plain, 0.8), 1.0) < VISIBLE_BLOCKS < np.quantile(blocky, 0.1)


def test_a_blank_or_tiny_picture_has_no_blocks() -> None:
    for side in (1, 5, 64):
        blank = Picture(np.full((side, side, 3), 127, np.uint8), 1)
        assert blank.blockiness(np.array([side / 2, side / 2])) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def detector(prepared_models: dict[str, PreparedModel]) -> YuNet:
    session = OnnxruntimeSession(prepared_models["detector"].read(), providers=["CPUExecutionProvider"])
    return YuNet(session, score_threshold=0.6, nms_threshold=0.3)


def test_looking_again_brings_disturbed_landmarks_back(detector: YuNet, some_faces: list[Path]) -> None:
    refiner, errors = LandmarkRefiner(detector), []
    generator = np.random.default_rng(7)
    for path in some_faces:
        pixels = cv2.imread(str(path))
        assert pixels is not None
        found = detector.detect(np.asarray(pixels, np.uint8))
        if not found:
            continue
        face = found[0]
        eyes = float(np.hypot(*(face.landmarks[1] - face.landmarks[0])))
        disturbed = Detection(
            face.box, face.landmarks + generator.normal(0, 0.1 * eyes, face.landmarks.shape), face.score
        )
        better = refiner.refine(Picture(np.asarray(pixels, np.uint8), 1), disturbed)
        before = np.abs(disturbed.landmarks - face.landmarks).mean() / eyes
        errors.append((before, np.abs(better.landmarks - face.landmarks).mean() / eyes))
    before, after = np.array(errors).T
    assert np.median(after) < 0.65 * np.median(before)  # a third of the disturbance remains in the mean of three
    assert (after < 0.2).all()  # and no look takes it to another face


def test_a_face_that_no_look_finds_keeps_its_landmarks(detector: YuNet) -> None:
    face = Detection(np.array([10.0, 10, 40, 50]), np.array([[20.0, 25], [40, 25], [30, 35], [22, 48], [38, 48]]), 0.9)
    blank = Picture(np.full((100, 100, 3), 127, np.uint8), 1)
    np.testing.assert_allclose(LandmarkRefiner(detector).refine(blank, face).landmarks, face.landmarks)


def test_the_cohort_mean_belongs_to_its_recogniser() -> None:
    known = load_manifest().get("sface-2021dec-int8bq", "recogniser")
    mean = cohort_mean(known)
    assert mean.shape == (128,)
    assert 0.1 < np.linalg.norm(mean) < 0.6  # a mean of unit vectors that have something in common
    other = known.model_copy(update={"sha256": "0" * 64})
    assert not cohort_mean(other).any()
    assert cohort_stamp(known) != cohort_stamp(other) == ""


def test_blocks_are_looked_for_inside_the_picture_even_when_a_face_is_cut_off() -> None:
    picture = Picture(np.full((40, 50, 3), 127, np.uint8), 1)
    assert picture.blockiness(np.array([5000.0, -300.0])) == 1.0
