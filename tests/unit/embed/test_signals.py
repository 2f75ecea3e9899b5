"""Signals against a probe: raised on screens, prints and drawings made here, not on real portraits."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from services.embed.faces.signals import MEASURES, THRESHOLDS, measure_signals
from services.embed.file_signals import file_signals
from services.embed.ports import Pixels
from services.local.demo.drawing import REFERENCE_SETTING, draw_face
from tests.accuracy.composites import charcoal
from tests.accuracy.signals import posterised, printed, retouched, screen
from tests.support.portraits import portraits


@pytest.fixture(scope="module")
def portrait() -> Pixels:
    """A real face, about 256 pixels of it."""
    pixels = cv2.imdecode(np.frombuffer(portraits()[1], np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.ascontiguousarray(_middle(pixels))  # type: ignore[arg-type]


def _middle(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    side = min(256, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _raised(pixels: Pixels, blockiness: float = 1.0) -> set[str]:
    signals = measure_signals(np.ascontiguousarray(_middle(pixels)), blockiness)
    assert [signal.name for signal in signals] == list(MEASURES)
    assert all(signal.is_raised == (signal.value >= THRESHOLDS[signal.name]) for signal in signals)
    return {signal.name for signal in signals if signal.is_raised}


def test_a_real_portrait_raises_nothing(portrait: Pixels) -> None:
    assert _raised(portrait) == set()


def test_pictures_of_pictures_show_a_pattern(portrait: Pixels) -> None:
    assert "periodic_pattern" in _raised(screen(portrait))
    assert "periodic_pattern" in _raised(printed(portrait))


def test_drawn_and_retouched_faces_lack_what_a_camera_leaves(portrait: Pixels) -> None:
    assert {"missing_noise", "flat_colours"} <= _raised(posterised(portrait))
    assert "missing_noise" in _raised(retouched(portrait))
    drawn = cv2.imdecode(np.frombuffer(draw_face(REFERENCE_SETTING, 700, 95), np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    assert _raised(drawn) & {"missing_noise", "flat_colours"}  # type: ignore[arg-type]


def test_charcoal_is_told_and_a_dark_picture_is_none(portrait: Pixels) -> None:
    assert "line_art" in _raised(charcoal(portrait))
    for light in (0.0, 0.08):
        assert "line_art" not in _raised((portrait * light).astype(np.uint8))


def test_compression_is_an_excuse(portrait: Pixels) -> None:
    assert _raised(retouched(portrait), blockiness=1.6) == set()


@pytest.mark.parametrize("shape", [(1, 1, 3), (8, 200, 3), (63, 63, 3), (256, 256, 3)])
def test_signals_of_anything_are_numbers(shape: tuple[int, int, int]) -> None:
    for value in (0, 127, 255):
        assert all(np.isfinite(signal.value) for signal in measure_signals(np.full(shape, value, np.uint8)))


def test_what_a_file_says_of_itself() -> None:
    assert file_signals(b"\xff\xd8 plain") == ()
    assert file_signals(b"\x89PNG tEXtparameters\x00a face, photorealistic") == ("file_says_generated",)
    assert file_signals(
        b"\xff\xd8\xff\xe1 ... http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    ) == ("file_says_generated",)
    assert file_signals(b"\xff\xd8" + b"Exif Adobe Photoshop 25.1") == (), "nearly every press photograph says so"
    assert file_signals(b"\xff\xd8" + bytes(2_000_000) + b"FaceApp") == ("file_says_edited",)


@pytest.mark.parametrize("kind", [{}, {"progressive": True}])
def test_marks_stand_before_the_scans_of_a_jpeg_or_after_its_end(kind: dict[str, bool]) -> None:
    written = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(written, "JPEG", quality=90, **kind)
    plain = written.getvalue()
    assert file_signals(plain) == ()
    # A thumbnail has scans and an end of its own, inside a segment.
    thumbnail = b"Exif\x00\x00" + plain[:400] + b"\xff\xda\x00\x08" + b"\xff\xd9" + b" FaceApp"
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    assert file_signals(plain[:2] + segment + plain[2:]) == ("file_says_edited",)
    assert file_signals(plain + bytes(1000) + b"FaceApp") == ("file_says_edited",)
    # Segments that cannot be followed hide nothing.
    assert file_signals(plain[:2] + b"\xff\xe1\x00\x00" + b"FaceApp" + plain[2:]) == ("file_says_edited",)
    assert file_signals(plain[:-2] + b" FaceApp") == ("file_says_edited",), "no end"
