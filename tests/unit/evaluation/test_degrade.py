"""Degradations do what their names say, the same way every time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.local.evaluation.degrade import SERIES, blur, inter_eye, inter_eye_jpeg, jpeg
from services.shared.errors import ImageRefused


def _picture() -> bytes:
    noise = np.random.default_rng(3).integers(0, 255, (120, 200, 3), dtype=np.uint8)
    return cv2.imencode(".png", cv2.GaussianBlur(noise, (0, 0), 1))[1].tobytes()


def _pixels(file: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


def test_the_picture_shrinks_by_the_distance_between_the_eyes() -> None:
    assert _pixels(inter_eye(24).apply(_picture(), 48.0)).shape == (60, 100, 3)


def test_nothing_is_enlarged() -> None:
    assert (_pixels(inter_eye(24).apply(_picture(), 12.0)) == _pixels(_picture())).all()


def test_compression_and_blur_take_detail_away() -> None:
    before = cv2.Laplacian(_pixels(_picture()), cv2.CV_32F).var()
    assert cv2.Laplacian(_pixels(blur(2).apply(_picture(), 50.0)), cv2.CV_32F).var() < 0.2 * before
    assert len(jpeg(20).apply(_picture(), 50.0)) < len(jpeg(90).apply(_picture(), 50.0)) / 2
    assert jpeg(20).apply(_picture(), 50.0)[:3] == b"\xff\xd8\xff"


def test_both_together() -> None:
    file = inter_eye_jpeg(24, 20).apply(_picture(), 48.0)
    assert file[:3] == b"\xff\xd8\xff"
    assert _pixels(file).shape == (60, 100, 3)


def test_the_series_is_repeatable_and_names_are_its_own() -> None:
    assert len({degradation.name for degradation in SERIES}) == len(SERIES)
    for degradation in SERIES:
        assert degradation.apply(_picture(), 50.0) == degradation.apply(_picture(), 50.0)


def test_a_file_that_is_no_picture_is_refused() -> None:
    with pytest.raises(ImageRefused):
        blur(2).apply(b"not a picture", 50.0)
