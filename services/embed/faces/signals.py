"""What about a face's pixels speaks against a camera's picture of a living face.

A signal is one number with a threshold, from plain image statistics that can be explained to a court. None proves
anything and none clears anything: where one is raised, a supervisor decides whether the probe is searched on. How often
each is raised on real pictures, and how often on what it is meant for: docs/probes.md.

| signal | what is measured | is meant for |
|---|---|---|
| periodic_pattern | the strongest peak of the spectrum over its surroundings | screens, prints (moiré, halftone) |
| missing_noise | what a 3 x 3 median takes away in smooth parts | drawings, heavy retouching, generated faces |
| flat_colours | share of 5 x 5 neighbourhoods without any change, in the face | drawings, posterised pictures |
| line_art | share that is nearly white, where dark lines are thin; or that is black or white | pencil, ink, charcoal |

They are read from at most 256 x 256 stored pixels around the face, unscaled: resampling makes and hides such traces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from services.embed.ports import Pixels
from services.shared.biometric import ProbeSignal

_SIDE = 256
_MEAN = cv2.INTER_AREA
_TWO_TONES = 0.8  # of a face in charcoal or ink; of a photograph's face at least a third is in between
_BOTH = 0.05  # and not just a dark picture, or a light one
_SMALLEST = 64  # pixels; a spectrum of less says nothing


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The stored pixels around a face: grey, and for each pixel the largest and smallest of its three colours."""

    pixels: Pixels
    grey: Pixels
    brightest: Pixels
    darkest: Pixels

    @classmethod
    def of(cls, pixels: Pixels) -> Window:
        blue, green, red = cv2.split(pixels)
        brightest = cv2.max(cv2.max(blue, green), red)
        darkest = cv2.min(cv2.min(blue, green), red)
        grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        return cls(pixels, grey, brightest, darkest)  # type: ignore[arg-type]


def periodic_pattern(window: Window) -> float:
    """Decibels of the strongest peak of the spectrum over the median around it; 0 for windows under 64 pixels.

    Peaks near the axes are left out: blocks of compression and upright edges lie there. Low frequencies are left out:
    there lies the face itself.
    """
    side = min(*window.grey.shape, _SIDE) // 2 * 2
    if side < _SMALLEST:
        return 0.0
    top, left = ((length - side) // 2 for length in window.grey.shape)
    square = window.grey[top : top + side, left : left + side].astype(np.float32)
    square -= cv2.GaussianBlur(square, (0, 0), 2.0)
    taper, is_counted = _spectrum_masks(side)
    both = cv2.dft(square * taper, flags=cv2.DFT_COMPLEX_OUTPUT)[:, : side // 2]
    level = cv2.log(cv2.magnitude(both[..., 0], both[..., 1]) + 1.0) * (20 / math.log(10))
    # Half decibels in eight bits, for a quick median.
    around = cv2.medianBlur((level * 2).clip(0, 255).astype(np.uint8), 9)
    rise = level - around.astype(np.float32) / 2
    return float(rise[is_counted].max())


@cache
def _spectrum_masks(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The taper of a square, and which frequencies of the left half of its spectrum count."""
    hann = np.hanning(side).astype(np.float32)
    rows, columns = np.ogrid[:side, : side // 2]
    down = np.minimum(rows, side - rows)
    is_counted = (np.minimum(down, columns) > 3) & (np.hypot(down, columns) > 0.08 * side)
    return hann * hann[:, None], is_counted


def missing_noise(window: Window) -> float:
    """100 without any noise in smooth mid-tones, falling to 0 at one grey level of it and more."""
    grey = window.grey
    if min(grey.shape) < _SMALLEST:
        return 0.0
    size = (grey.shape[1] // 8, grey.shape[0] // 8)
    grey = grey[: size[1] * 8, : size[0] * 8]
    residue = cv2.resize(cv2.absdiff(grey, cv2.medianBlur(grey, 3)).astype(np.float32), size, interpolation=_MEAN)
    plane = grey.astype(np.float32)
    tone, power = cv2.resize(plane, size, interpolation=_MEAN), cv2.resize(plane * plane, size, interpolation=_MEAN)
    is_told = (tone > 40) & (tone < 220) & (power - tone * tone < 144)
    if is_told.sum() < 16:
        return 0.0
    return 100 * float(np.clip(1 - np.median(residue[is_told]), 0, 1))


def flat_colours(window: Window) -> float:
    """Per cent of 5 x 5 neighbourhoods of one colour alone; black and white ones are left out: those are clipped."""
    kernel = np.ones((5, 5), np.uint8)
    spread = [cv2.subtract(cv2.dilate(each, kernel), cv2.erode(each, kernel)) for each in cv2.split(window.pixels)]
    is_flat = cv2.max(cv2.max(spread[0], spread[1]), spread[2]) == 0
    is_told = (window.grey > 16) & (window.grey < 240)
    told = int(np.count_nonzero(is_told))
    return 100 * float(np.count_nonzero(is_flat & is_told)) / told if told else 0.0


def line_art(window: Window) -> float:
    """In a picture without colour, per cent of nearly white pixels where its dark parts are thin, or of nearly white
    and nearly black ones together where there are both and hardly any between; 0 in any other picture."""
    chroma = float(cv2.subtract(window.brightest, window.darkest).mean())
    dark = (window.grey < 170).astype(np.uint8)
    count = int(np.count_nonzero(dark))
    if chroma > 12 or not count:
        return 0.0
    thick = np.count_nonzero(cv2.erode(dark, np.ones((7, 7), np.uint8))) / count
    lines = float(np.count_nonzero(window.grey > 225) / window.grey.size) * float(thick < 0.2)
    white, black = (float(np.count_nonzero(tone) / tone.size) for tone in (window.grey > 215, window.grey < 40))
    is_two_tones = white + black >= _TWO_TONES and min(white, black) >= _BOTH
    return 100 * max(lines, (white + black) * float(is_two_tones))


MEASURES: Mapping[str, Callable[[Window], float]] = {
    "periodic_pattern": periodic_pattern,
    "missing_noise": missing_noise,
    "flat_colours": flat_colours,
    "line_art": line_art,
}
# Set so that about one real picture in two hundred raises each; the rates that follow stand in docs/probes.md.
THRESHOLDS: Mapping[str, float] = {
    "periodic_pattern": 15.0,
    "missing_noise": 88.0,
    "flat_colours": 12.0,
    "line_art": 5.0,
}
# Compression takes noise away too, and leaves whole blocks of one colour: from this Picture.blockiness on, neither says
# anything.
_BLOCKY = 1.4


def measure_signals(window: Pixels, blockiness: float = 1.0) -> tuple[ProbeSignal, ...]:
    """Every signal of a face's window (Picture.window, Picture.blockiness), raised or not."""
    seen = Window.of(window)
    values = {name: measure(seen) for name, measure in MEASURES.items()}
    if blockiness >= _BLOCKY:
        values |= {"missing_noise": 0.0, "flat_colours": 0.0}
    return tuple(_signal(name, value) for name, value in values.items())


def _signal(name: str, value: float) -> ProbeSignal:
    threshold = THRESHOLDS[name]
    return ProbeSignal(name, value, threshold, is_raised=value >= threshold)
