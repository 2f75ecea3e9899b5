"""Signals against a probe: raised on screens, prints and drawings made here, not on real portraits."""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from services.embed.faces.signals import MEASURES, THRESHOLDS, measure_signals
from services.embed.file_parts import parts_without_pixels
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


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A picture with further chunks before its pixels."""
    written = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(written, "PNG")
    plain = written.getvalue()
    more = b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in chunks
    )
    return plain[:33] + more + plain[33:]


def _jpeg(*segments: tuple[int, bytes]) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(written, "JPEG")
    plain = written.getvalue()
    more = b"".join(b"\xff" + bytes([kind]) + (len(body) + 2).to_bytes(2, "big") + body for kind, body in segments)
    return plain[:2] + more + plain[2:]


def _webp(**more: bytes) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(written, "WEBP", **more)
    return written.getvalue()


_SOURCE = b"http://cv.iptc.org/newscodes/digitalsourcetype/"
_SETTINGS = "a face\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7"
_LONG = b"x" * 65_000  # so that what follows stands in the next segment
GENERATED = {
    "png_deflated_settings": _png((b"zTXt", b"parameters\x00\x00" + zlib.compress(_SETTINGS.encode()))),
    "png_international_settings": _png((b"iTXt", b"prompt\x00\x00\x00\x00\x00{}")),
    "png_node_graph": _png((b"tEXt", b'workflow\x00{"nodes": []}')),
    "png_software": _png((b"tEXt", b"Software\x00NovelAI")),
    "jpeg_comment_of_two_bytes": _jpeg((0xE1, b"Exif\x00\x00UNICODE\x00" + _SETTINGS.encode("utf-16-be"))),
    "webp_comment_of_two_bytes": _webp(exif=b"Exif\x00\x00UNICODE\x00" + _SETTINGS.encode("utf-16-le")),
    "webp_xmp": _webp(xmp=_SOURCE + b"trainedAlgorithmicMedia"),
    "manifest_in_two_segments": _jpeg(
        (0xEB, b"JP\x00\x01\x00\x00\x00\x01" + b"\x00\x01\x00\x00jumb" + _LONG + _SOURCE + b"trainedAlgo"),
        (0xEB, b"JP\x00\x01\x00\x00\x00\x02" + b"\x00\x01\x00\x00jumb" + b"rithmicMedia"),
    ),
    "extended_xmp_in_two_segments": _jpeg(
        *(
            (0xE1, b"http://ns.adobe.com/xmp/extension/\x00" + bytes(40) + piece)
            for piece in (_LONG + _SOURCE + b"trained", b"AlgorithmicMedia")
        )
    ),
    "manifest_in_png": _png((b"caBX", b"jumbc2pa" + _SOURCE + b"trainedAlgorithmicMedia")),
}
EDITED = {
    "composite": _jpeg((0xE1, _SOURCE + b"compositeCapture")),
    "what_a_screen_showed": _png((b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + _SOURCE + b"screenCapture")),
    "application_for_faces": _jpeg((0xE1, b"Exif\x00\x00MM\x00*Remini 3.7")),
}
PLAIN = {
    "camera_that_signs": _jpeg((0xEB, b"JP\x00\x01\x00\x00\x00\x01jumbc2pa" + _SOURCE + b"digitalCapture")),
    "general_editor": _png((b"tEXt", b"Software\x00Adobe Photoshop 25.1")),
    "words_that_begin_alike": _jpeg((0xED, b"Photoshop 3.0 Reminiscent of a promptbook, in full workflow")),
    "text_of_a_camera": _png((b"tEXt", b"Comment\x00prompt and parameters of the shutter")),
}


@pytest.mark.parametrize("name", [*GENERATED, *EDITED, *PLAIN])
def test_marks_are_found_wherever_generators_leave_them_and_nowhere_else(name: str) -> None:
    expected = ("file_says_generated",) if name in GENERATED else ("file_says_edited",) if name in EDITED else ()
    file = (GENERATED | EDITED | PLAIN)[name]
    Image.open(io.BytesIO(file)).load()  # a picture, not only a mark
    assert file_signals(file) == expected


def test_a_million_empty_segments_or_chunks_are_not_followed_one_by_one() -> None:
    """They are followed in the service itself: what stands behind them is found in the ends, or not at all."""
    segments = b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1_000_000
    chunks = b"\x89PNG\r\n\x1a\n" + (bytes(4) + b"IDAT" + bytes(4)) * 1_000_000
    for file in (segments, chunks):
        assert len(parts_without_pixels(file)) == 2
        assert sum(map(len, parts_without_pixels(file))) < 1_000_000
        assert file_signals(file + b"FaceApp") == ("file_says_edited",)
