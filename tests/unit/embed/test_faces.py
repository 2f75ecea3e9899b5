"""Detection, alignment and templates equal OpenCV's; scales, orientations and reading order do not disturb them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from services.embed.adapters.onnxruntime_session import OnnxruntimeSession
from services.embed.faces.analyser import FaceAnalyser, PictureJob, chosen_faces
from services.embed.faces.detector import Detection, YuNet, suppress
from services.embed.faces.finder import FaceFinder, reading_order
from services.embed.faces.geometry import similarity, turn_upright, upright_from_stored
from services.embed.faces.landmarks import LandmarkRefiner
from services.embed.faces.picture import Picture
from services.embed.faces.recogniser import REFERENCE_POINTS, SIDE, Recogniser, alignment
from services.embed.faces.templates import Templater
from services.embed.models.store import PreparedModel
from services.embed.ports import Pixels, Selection

CPU = ["CPUExecutionProvider"]
THRESHOLD, OVERLAP = 0.6, 0.3


@pytest.fixture(scope="session")
def detector(prepared_models: dict[str, PreparedModel]) -> YuNet:
    session = OnnxruntimeSession(prepared_models["detector"].read(), providers=CPU)
    return YuNet(session, score_threshold=THRESHOLD, nms_threshold=OVERLAP)


@pytest.fixture(scope="session")
def recogniser(prepared_models: dict[str, PreparedModel]) -> Recogniser:
    session = OnnxruntimeSession(prepared_models["recogniser"].read(), providers=CPU)
    return Recogniser(session, kind="sface", dimension=128)


@pytest.fixture(scope="session")
def analyser(detector: YuNet, recogniser: Recogniser) -> FaceAnalyser:
    finder = FaceFinder(detector, nms_threshold=OVERLAP, max_faces=50)
    templater = Templater(recogniser, np.zeros(128, np.float32))
    return FaceAnalyser(finder, LandmarkRefiner(detector), templater, "test", "never")


@pytest.fixture(scope="session")
def opencv_detector(prepared_models: dict[str, PreparedModel], tmp_path_factory: pytest.TempPathFactory) -> object:
    """OpenCV's own YuNet on the file as it was published."""
    model = prepared_models["detector"]
    source = model.path.parents[1] / "sources" / model.entry.file
    return cv2.FaceDetectorYN.create(str(source), "", (320, 320), THRESHOLD, OVERLAP, 5000)


@pytest.fixture(scope="session")
def portrait(some_faces: list[Path]) -> Pixels:
    """One face, about 100 pixels wide."""
    return _read(next(path for path in some_faces if "us_congress" in str(path)))


def _read(path: Path) -> Pixels:
    pixels = cv2.imread(str(path))
    assert pixels is not None, path
    return pixels  # type: ignore[return-value]


def _face(x: float, y: float, width: float = 40, height: float = 50, score: float = 0.9) -> Detection:
    return Detection(np.array([x, y, width, height]), REFERENCE_POINTS + np.array([x, y]), score)


def _template(analyser: FaceAnalyser, pixels: Pixels, orientation: int = 1) -> npt.NDArray[np.float32]:
    (result,) = analyser.analyse([PictureJob(Picture(pixels, orientation), Selection.LARGEST)])
    (template,) = (face.template for face in result.faces if face.template)
    return template.vector


def test_detections_equal_opencvs(detector: YuNet, opencv_detector: object, some_faces: list[Path]) -> None:
    for path in some_faces:
        pixels = _read(path)
        opencv_detector.setInputSize(pixels.shape[1::-1])  # type: ignore[attr-defined]
        _, theirs = opencv_detector.detect(pixels)  # type: ignore[attr-defined]
        ours = detector.detect(pixels)
        assert len(ours) == (0 if theirs is None else len(theirs)), path
        for face, row in zip(ours, () if theirs is None else theirs, strict=True):
            np.testing.assert_allclose(face.box, row[:4], atol=0.05)
            np.testing.assert_allclose(face.landmarks.ravel(), row[4:14], atol=0.05)
            assert face.score == pytest.approx(row[14], abs=1e-3)


def test_templates_equal_opencvs(
    detector: YuNet, recogniser: Recogniser, prepared_models: dict[str, PreparedModel], some_faces: list[Path]
) -> None:
    theirs = cv2.FaceRecognizerSF.create(str(prepared_models["recogniser"].path), "")
    for path in some_faces:
        pixels = _read(path)
        for face in detector.detect(pixels)[:1]:
            row = np.concatenate([face.box, face.landmarks.ravel(), [face.score]]).astype(np.float32)
            expected = theirs.feature(theirs.alignCrop(pixels, row[None]))[0]
            (vector,) = recogniser.vectors([Picture(pixels, 1).aligned(alignment(face.landmarks), SIDE)])
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
            assert vector @ expected / np.linalg.norm(expected) >= 0.9999, path


def test_the_prepared_recogniser_answers_as_published(
    detector: YuNet, recogniser: Recogniser, prepared_models: dict[str, PreparedModel], some_faces: list[Path]
) -> None:
    model = prepared_models["recogniser"]
    published = _published_session(model.path.parents[1] / "sources" / model.entry.file)
    for path in some_faces[::2]:
        pixels = _read(path)
        for face in detector.detect(pixels)[:1]:
            crop = Picture(pixels, 1).aligned(alignment(face.landmarks), SIDE)
            (vector,) = recogniser.vectors([crop])
            expected = published(cv2.dnn.blobFromImage(crop, swapRB=True))  # type: ignore[arg-type]
            assert vector @ expected / np.linalg.norm(expected) >= 0.9999, path


def _published_session(path: Path) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """The file as published. Its dangling inputs, which nothing in it reads, get zeros."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=CPU)
    dangling = {item.name: np.zeros(item.shape, np.float32) for item in session.get_inputs() if item.name != "data"}
    return lambda blob: session.run(None, {"data": blob, **dangling})[0][0]


def test_a_batch_gives_what_single_faces_give(recogniser: Recogniser) -> None:
    faces = [np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), np.uint8) for seed in range(4)]
    batch = recogniser.vectors(faces)
    for face, vector in zip(faces, batch, strict=True):
        assert recogniser.vectors([face])[0] @ vector >= 0.99999


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_without_turning_the_pixels(
    analyser: FaceAnalyser, portrait: Pixels, orientation: int
) -> None:
    # Store the upright portrait as a camera that writes this orientation would.
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    stored = np.ascontiguousarray(turn_upright(portrait, undo))
    assert np.array_equal(turn_upright(stored, orientation), portrait)
    height, width = stored.shape[:2]
    corner = upright_from_stored(orientation, width, height) @ [0, 0, 1]
    x, y = (round(value) for value in corner)
    assert np.array_equal(portrait[y, x], stored[0, 0])
    assert _template(analyser, stored, orientation) @ _template(analyser, portrait) >= 0.9999


def test_a_face_is_found_with_the_same_landmarks_in_a_large_picture(analyser: FaceAnalyser, portrait: Pixels) -> None:
    """An enlarged picture goes through reduction; landmarks come back in its own pixels."""
    enlarged = cv2.resize(portrait, None, fx=9, fy=9, interpolation=cv2.INTER_CUBIC)
    (small,) = analyser.analyse([PictureJob(Picture(portrait, 1), Selection.SOLE)])
    (large,) = analyser.analyse([PictureJob(Picture(enlarged, 1), Selection.SOLE)])  # type: ignore[arg-type]
    expected = (np.array(small.faces[0].landmarks) + 0.5) * 9 - 0.5
    error = np.abs(np.array(large.faces[0].landmarks) - expected).max()
    assert error < 0.06 * large.faces[0].inter_eye_px
    assert _template(analyser, enlarged) @ _template(analyser, portrait) >= 0.9  # type: ignore[arg-type]


@pytest.mark.parametrize("eyes_px", [14, 600])
def test_small_and_filling_faces_are_found(analyser: FaceAnalyser, portrait: Pixels, eyes_px: int) -> None:
    (plain,) = analyser.analyse([PictureJob(Picture(portrait, 1), Selection.NONE)])
    face = plain.faces[0]
    scale = eyes_px / face.inter_eye_px
    pixels = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if eyes_px > 100:  # nothing but the face
        x, y, width, height = (
            round(value * scale) for value in (face.box.x, face.box.y, face.box.width, face.box.height)
        )
        pixels = np.ascontiguousarray(pixels[max(0, y) : y + height, max(0, x) : x + width])
    (found,) = analyser.analyse([PictureJob(Picture(pixels, 1), Selection.NONE)])  # type: ignore[arg-type]
    assert len(found.faces) == 1
    assert found.faces[0].inter_eye_px == pytest.approx(eyes_px, rel=0.15)


def test_small_faces_are_found_beside_large_ones(analyser: FaceAnalyser, portrait: Pixels) -> None:
    """A poster-sized picture with one large face and one of 20 pixels that the first pass sees as 9."""
    canvas = np.full((1400, 1400, 3), 128, np.uint8)
    large = cv2.resize(portrait, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    canvas[: large.shape[0], : large.shape[1]] = large[:1400, :1400]
    small = cv2.resize(portrait, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    canvas[1200 : 1200 + small.shape[0], 1200 : 1200 + small.shape[1]] = small
    (found,) = analyser.analyse([PictureJob(Picture(canvas, 1), Selection.ALL)])
    assert len(found.faces) == 2
    assert found.faces[0].inter_eye_px > 5 * found.faces[1].inter_eye_px
    assert all(face.template for face in found.faces)
    assert found.batch_faces == 2


def test_a_picture_without_a_face_has_none(analyser: FaceAnalyser) -> None:
    for size in ((480, 640), (1, 1), (3, 2000), (20, 20)):
        noise = np.random.default_rng(4).integers(0, 255, (*size, 3), np.uint8)
        (result,) = analyser.analyse([PictureJob(Picture(noise, 1), Selection.ALL)])
        assert result.faces == ()


def test_similarity_recovers_rotation_scale_and_shift() -> None:
    angle, scale = 0.4, 2.5
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = REFERENCE_POINTS @ turn.T + [12, -7]
    found = similarity(REFERENCE_POINTS, moved)
    np.testing.assert_allclose(found, np.column_stack([turn, [12, -7]]), atol=1e-9)


def test_overlapping_boxes_leave_the_better_one() -> None:
    rows = np.zeros((3, 15))
    rows[:, :4] = [[0, 0, 10, 10], [1, 1, 10, 10], [30, 0, 10, 10]]
    rows[:, 14] = [0.7, 0.9, 0.8]
    kept = suppress(rows, OVERLAP)
    assert kept[:, 14].tolist() == [0.9, 0.8]


def test_reading_order_is_rows_then_columns() -> None:
    faces = [_face(200, 112), _face(10, 100), _face(100, 95), _face(50, 300), _face(5, 310)]
    ordered = [(face.box[0], face.box[1]) for face in reading_order(faces)]
    assert ordered == [(10, 100), (100, 95), (200, 112), (5, 310), (50, 300)]


def test_selection_chooses_the_faces_that_get_a_template() -> None:
    small, large, cut_off = _face(0, 0, 30, 30), _face(50, 0, 60, 60), _face(200, 0, 65, 62, score=0.61)
    faces = [small, large, cut_off]
    assert chosen_faces(Selection.ALL, 0, faces) == [0, 1, 2]
    assert chosen_faces(Selection.NONE, 0, faces) == []
    assert chosen_faces(Selection.SOLE, 0, faces) == []
    assert chosen_faces(Selection.SOLE, 0, [small]) == [0]
    assert chosen_faces(Selection.BY_INDEX, 2, faces) == [2]
    assert chosen_faces(Selection.BY_INDEX, 3, faces) == []
    assert chosen_faces(Selection.LARGEST, 0, faces) == [1]
    assert chosen_faces(Selection.LARGEST, 0, []) == []
