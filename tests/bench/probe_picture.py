"""Pictures for the benchmark: a real face from a pinned package on canvases of the sizes that probes have."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from tests.support.faces import DevelopmentFaces, shared_data

Pixels = npt.NDArray[np.uint8]
_CUSTODY_HEIGHT, _CUSTODY_QUALITY = 1000, 88

# name -> (width, height) of what cameras and screenshots give
SIZES = {"640x480": (640, 480), "2 MP": (1632, 1225), "12 MP": (4000, 3000)}


def probe_jpeg(portrait: bytes, width: int, height: int, *, seed: int = 1) -> bytes:
    """A JPEG of that size: textured ground, the portrait at two fifths of the height. Both paths find its one face."""
    ground = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    canvas = cv2.GaussianBlur(cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC), (0, 0), 3)
    picture = _decoded(portrait)
    tall = height * 2 // 5
    wide = round(picture.shape[1] * tall / picture.shape[0])
    top, left = height // 4, width // 4
    canvas[top : top + tall, left : left + wide] = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA)
    return _encoded(canvas.astype(np.uint8), 90)


def custody_images(portraits: list[bytes], count: int) -> Iterator[tuple[str, bytes]]:
    """`count` times a subject and a JPEG of theirs, a thousand pixels high: many people, a few with several images.

    Of the development faces where the machine has them; elsewhere every image is a variant of a few portraits, which is
    slower, since each is then flagged as another subject's face.
    """
    faces = shared_data() / "faces"
    if not (faces / "manifest.csv").is_file():
        for number, jpeg in enumerate(distinct_portraits(portraits, count)):
            yield f"BENCH-{number:06}", jpeg
        return
    stills = DevelopmentFaces.load(faces).stills
    for number in range(count):
        still = stills[number % len(stills)]
        picture = _decoded(still.path.read_bytes())
        scale = _CUSTODY_HEIGHT / picture.shape[0]
        scaled = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        cut = 1 + 10 * (number // len(stills))
        yield still.identity, _encoded(np.ascontiguousarray(scaled[cut:-cut, cut:-cut]), _CUSTODY_QUALITY)


def distinct_portraits(portraits: list[bytes], count: int) -> Iterator[bytes]:
    """`count` different files, each a portrait slightly cropped and coded again."""
    decoded = [_decoded(portrait) for portrait in portraits]
    for number in range(count):
        picture = decoded[number % len(decoded)]
        cut = 1 + (number // len(decoded)) % 12
        quality = 80 + (number // (len(decoded) * 12)) % 16
        yield _encoded(np.ascontiguousarray(picture[cut:-cut, cut:-cut]), quality)


def _decoded(content: bytes) -> Pixels:
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("the portrait does not decode")
    return np.asarray(picture, np.uint8)


def _encoded(picture: npt.NDArray[np.uint8], quality: int) -> bytes:
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
