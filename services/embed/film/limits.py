"""What an untrusted film may cost, and how its reader says no."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FilmLimits:
    """Limits of one film, and of the worker process that reads it."""

    max_pixels: int
    max_frames: int
    index_cpu_s: float
    frame_cpu_s: float
    memory_bytes: int


class Refused(Exception):
    """The film cannot be read. `code` is from FILM_REFUSALS, the text names what was wrong."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text or code)
        self.code = code
        self.text = text
