"""What untrusted bytes may cost, and how the gate says no."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# What a worker is told of a picture: the arena where it lies, and its bytes.
ORDER = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Limits of one picture, and of the worker process that decodes it."""

    max_pixels: int
    cpu_s: float
    memory_bytes: int


class Undecodable(Exception):
    """The bytes contradict themselves. The text names what was wrong, in the decoder's words."""


class TooManyPixels(Exception):
    """Over the pixel limit by the header."""


def check_pixels(width: int, height: int, limits: GateLimits) -> None:
    """Before any pixel is decoded."""
    if width < 1 or height < 1:
        raise Undecodable(f"{width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise TooManyPixels(f"{width} x {height} pixels")
