"""The use case: an untrusted file in, a picture of the platform's own making out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore
from time import monotonic

import cv2
import numpy as np

from services.embed.faces.geometry import turn_upright
from services.embed.gate.pool import DecodedLease, GatePool
from services.embed.ports import Pixels
from services.shared.errors import ImageRefused, Overloaded, PlatformError
from services.shared.settings import MAX_IMAGE_BYTES
from services.shared.telemetry import Metrics

LARGEST_SIDE = 4096
_JPEG_QUALITY = 90
_REDUCE_AGAIN = 0.75  # a picture of noise that does not fit into a message is made smaller until it does


@dataclass(frozen=True, slots=True)
class Rendered:
    """`scale` is upright pixels of the original for one of this picture, at least 1."""

    content: bytes
    width: int
    height: int
    scale: float


class RenderPicture:
    """Decodes in the gate, turns upright, encodes again. Takes `at_once` calls, refuses more."""

    def __init__(self, gate: GatePool, metrics: Metrics, *, at_once: int) -> None:
        self._gate = gate
        self._metrics = metrics
        self._places = BoundedSemaphore(at_once)

    def __call__(self, image: bytes, max_side: int, *, as_jpeg: bool, timeout_s: float) -> Rendered:
        """The first frame, reduced so that no side is over `max_side` (at most LARGEST_SIDE; 0 for that).

        The same arguments give the same bytes. Raises ImageRefused, Overloaded, PlatformError.
        """
        side = min(max_side or LARGEST_SIDE, LARGEST_SIDE)
        with self._place():
            try:
                with self._gate.decoded(image, monotonic() + timeout_s) as lease:
                    pixels = _upright(lease)
            except ImageRefused as refusal:
                self._metrics.embed_refusals_total.labels(refusal.code).inc()
                raise
            return _encoded(pixels, side, as_jpeg=as_jpeg)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Overloaded("Too many pictures are being rendered.", advice="Try again in a few seconds.")
        try:
            yield
        finally:
            self._places.release()


def _upright(lease: DecodedLease) -> Pixels:
    """A copy of the pixels, upright: the arena is given back before anything is encoded."""
    image = lease.image
    count = image.stored_width * image.stored_height * 3
    stored = np.frombuffer(lease.arena.pixel_view()[:count], dtype=np.uint8)
    return turn_upright(stored.reshape(image.stored_height, image.stored_width, 3), image.orientation).copy()


def _encoded(pixels: Pixels, max_side: int, *, as_jpeg: bool) -> Rendered:
    while True:
        reduced = _reduced(pixels, max_side)
        content = _encode(reduced, as_jpeg=as_jpeg)
        if len(content) <= MAX_IMAGE_BYTES:
            height, width = reduced.shape[:2]
            return Rendered(content, width, height, pixels.shape[1] / width)
        max_side = int(max(reduced.shape[:2]) * _REDUCE_AGAIN)


def _reduced(pixels: Pixels, max_side: int) -> Pixels:
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _encode(pixels: Pixels, *, as_jpeg: bool) -> bytes:
    kind, options = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]) if as_jpeg else (".png", [])
    is_encoded, content = cv2.imencode(kind, pixels, options)
    if not is_encoded:
        raise PlatformError("A decoded picture could not be encoded.", advice="Tell the operators.")
    return content.tobytes()
