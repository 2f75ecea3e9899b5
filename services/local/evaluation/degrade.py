"""Worse versions of a picture, made the same way every time, to see what low quality costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from services.shared.errors import ImageRefused

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Degradation:
    """`apply(file, inter_eye_px)` gives the degraded file; the distance is that of the face that was searched."""

    name: str
    apply: Callable[[bytes, float], bytes]


def _decode(file: bytes) -> Pixels:
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ImageRefused("The picture cannot be degraded: OpenCV does not decode it.", advice="Leave it out.")
    return pixels  # type: ignore[return-value]


def _encode(pixels: Pixels, extension: str, parameters: tuple[int, ...] = ()) -> bytes:
    _done, encoded = cv2.imencode(extension, pixels, parameters)
    return encoded.tobytes()


def _shrunk(pixels: Pixels, factor: float) -> Pixels:
    if factor >= 1:
        return pixels
    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    return _encode(pixels, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, quality))


def inter_eye(pixels_between: float) -> Degradation:
    """The whole picture reduced until so many pixels lie between the eyes; never enlarged. Kept without loss."""

    def apply(file: bytes, inter_eye_px: float) -> bytes:
        return _encode(_shrunk(_decode(file), pixels_between / inter_eye_px), ".png")

    return Degradation(f"{pixels_between:g} px between the eyes", apply)


def jpeg(quality: int) -> Degradation:
    return Degradation(f"JPEG quality {quality}", lambda file, _eyes: _jpeg(_decode(file), quality))


def blur(sigma: float) -> Degradation:
    """Gaussian, `sigma` in pixels of the picture as it is."""

    def apply(file: bytes, _eyes: float) -> bytes:
        return _encode(cv2.GaussianBlur(_decode(file), (0, 0), sigma), ".png")  # type: ignore[arg-type]

    return Degradation(f"blur, sigma {sigma:g} px", apply)


def inter_eye_jpeg(pixels_between: float, quality: int) -> Degradation:
    """Reduced, then compressed: what a distant camera and a messenger leave of a face."""

    def apply(file: bytes, inter_eye_px: float) -> bytes:
        return _jpeg(_shrunk(_decode(file), pixels_between / inter_eye_px), quality)

    return Degradation(f"{pixels_between:g} px between the eyes, JPEG quality {quality}", apply)


SERIES = (
    inter_eye(40),
    inter_eye(24),
    inter_eye(16),
    inter_eye(12),
    jpeg(20),
    blur(2),
    inter_eye_jpeg(24, 20),
)
