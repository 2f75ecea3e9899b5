"""How often each signal is raised on real pictures, and on what it is meant for, as far as that can be made here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import cv2
import numpy as np

from services.embed.faces.analyser import FaceAnalyser, PictureJob
from services.embed.faces.picture import Picture
from services.embed.faces.signals import MEASURES, THRESHOLDS
from services.embed.ports import Pixels, Selection
from services.local.evaluation.labelled_set import LabelledSet
from services.local.evaluation.metrics import wilson
from tests.accuracy.composites import Composer, charcoal, comic, from_further_away, from_the_side
from tests.accuracy.naive import decode
from tests.accuracy.quality_data import in_process_analyser

Make = Callable[[Pixels], Pixels]


def _resized(pixels: np.ndarray, factor: float, interpolation: int = cv2.INTER_AREA) -> Pixels:
    return np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=interpolation), np.uint8)


def _camera(pixels: np.ndarray, degrees: float, scale: float) -> Pixels:
    """A picture of a picture: a little turned, scaled, softened by a lens, with the noise of a sensor, as JPEG 90."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    size = (round(width * scale), round(height * scale))
    matrix[:, 2] += [size[0] / 2 - width / 2, size[1] / 2 - height / 2]
    seen = cv2.GaussianBlur(cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR), (0, 0), 0.5)
    noisy = seen + np.random.default_rng(5).normal(0, 2, seen.shape)
    return _jpeg(noisy.clip(0, 255).astype(np.uint8), 90)


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    _done, encoded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _fitting(pixels: Pixels) -> Pixels:
    """At most 640 pixels a side, as a screen or a print shows it; every one becomes many."""
    factor = 640 / max(pixels.shape[:2])
    return _resized(pixels, factor) if factor < 1 else pixels


def screen(pixels: Pixels) -> Pixels:
    """Shown on a screen with red, green and blue stripes and dark gaps, and photographed by a camera that exposes it as
    light as the picture was."""
    pixels = _fitting(pixels)
    shown = np.repeat(np.repeat(pixels, 6, axis=0), 6, axis=1).astype(np.float32)
    stripes = np.zeros((6, 6, 3), np.float32)
    for channel, column in ((2, 0), (1, 2), (0, 4)):
        stripes[:5, column : column + 2, channel] = 2.2
    rows, columns = -(-shown.shape[0] // 6), -(-shown.shape[1] // 6)
    lit = (shown * np.tile(stripes, (rows, columns, 1))[: shown.shape[0], : shown.shape[1]]).clip(0, 255)
    seen = _camera(lit.astype(np.uint8), 2.5, 0.42)
    exposure = float(pixels.mean()) / max(1.0, float(seen.mean()))
    return np.asarray((seen * exposure).clip(0, 255), np.uint8)


def printed(pixels: Pixels) -> Pixels:
    """Printed in dots of four inks at the usual angles, and photographed."""
    large = _resized(_fitting(pixels), 4, cv2.INTER_CUBIC).astype(np.float32) / 255
    black = 1 - large.max(axis=2)
    inks = [1 - large[..., channel] - black for channel in (2, 1, 0)] + [black]
    down, across = np.mgrid[: large.shape[0], : large.shape[1]].astype(np.float32)
    paper = np.ones_like(large)
    for ink, degrees, takes in zip(inks, (15, 75, 0, 45), ((2,), (1,), (0,), (0, 1, 2)), strict=True):
        turn = np.deg2rad(degrees)
        first = across * np.cos(turn) + down * np.sin(turn)
        second = down * np.cos(turn) - across * np.sin(turn)
        dots = (np.cos(first * 2 * np.pi / 8) + np.cos(second * 2 * np.pi / 8)) / 4 + 0.5
        printed_here = dots < ink
        for channel in takes:
            paper[..., channel][printed_here] = 0.08
    return _camera((paper * 255).astype(np.uint8), 1.5, 0.55)


def pencil(pixels: Pixels) -> Pixels:
    grey, _colour = cv2.pencilSketch(pixels, sigma_s=60, sigma_r=0.07, shade_factor=0.05)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def cartoon(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.stylization(pixels, sigma_s=60, sigma_r=0.45), np.uint8)


def posterised(pixels: Pixels) -> Pixels:
    """Twelve colours, as in a drawing made from a photograph."""
    points = pixels.reshape(-1, 3).astype(np.float32)
    cv2.setRNGSeed(1)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, 8, 1.0)
    smooth = cv2.bilateralFilter(pixels, 9, 60, 9).reshape(-1, 3).astype(np.float32)
    _, _, centres = cv2.kmeans(points[:: max(1, len(points) // 4000)], 12, None, criteria, 1, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    nearest = ((smooth[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    return np.asarray(centres[nearest].reshape(pixels.shape), np.uint8)


def retouched(pixels: Pixels) -> Pixels:
    """Skin as smooth as an application for portraits makes it."""
    smooth = pixels
    for _ in range(4):
        smooth = np.asarray(cv2.bilateralFilter(smooth, 9, 40, 7), np.uint8)
    return smooth


def pasted(pixels: Pixels) -> Pixels:
    """Features of different sharpness put together: the middle of the face from a softened copy."""
    height, width = pixels.shape[:2]
    soft = cv2.GaussianBlur(pixels, (0, 0), 1.5)
    mask = np.zeros((height, width, 1), np.float32)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 6, height // 6), 0, 0, 360, 1.0, -1)
    return np.asarray(pixels * (1 - mask) + soft * mask, np.uint8)


MADE: Mapping[str, Make] = {
    "photograph of a screen": screen,
    "photograph of a print": printed,
    "photograph of a screen, from the side": from_the_side(screen),
    "photograph of a print, from the side": from_the_side(printed),
    "photograph of a screen, half as many pixels": from_further_away(screen),
    "photograph of a print, half as many pixels": from_further_away(printed),
    "pencil drawing": pencil,
    "charcoal drawing": charcoal,
    "comic with outlines": comic,
    "painted or drawn in colour": cartoon,
    "twelve colours": posterised,
    "heavily retouched": retouched,
    "heavily retouched, then JPEG 85": lambda pixels: _jpeg(retouched(pixels), 85),
    "features of different sharpness": pasted,
    "JPEG 30 (a real picture, sent around)": lambda pixels: _jpeg(pixels, 30),
    "half the size (a real picture)": lambda pixels: _resized(pixels, 0.5),
}


def signals_table(labelled: LabelledSet, count: int, only: str = "") -> str:
    """Markdown: how often each signal is raised on 15 x `count` stills as they are, and on `count` made into others.

    With `only`, just the rows whose name holds it.
    """
    analyser, _ = in_process_analyser()
    sample = [still.path.read_bytes() for still in labelled.stills[1 :: len(labelled.stills) // count]]
    donors = [still.path.read_bytes() for still in labelled.stills[7 :: len(labelled.stills) // 20]]
    kinds = {**MADE, **Composer(analyser, donors).makers()}
    rows = [
        _row(f"{name} ({len(made)})", made)
        for name, make in kinds.items()
        if only in name and (made := list(_values(analyser, sample, make)))
    ]
    if only:
        return "\n".join(rows)
    seen = labelled.stills[:: max(1, len(labelled.stills) // (15 * count))]
    real = list(_values(analyser, [still.path.read_bytes() for still in seen], lambda pixels: pixels))
    lines = ["Percentiles on real pictures: " + _percentiles(real), ""]
    lines += ["| pictures | " + " | ".join([*MEASURES, "any"]) + " |", "|---" * (2 + len(MEASURES)) + "|"]
    return "\n".join([*lines, _row(f"real, as they are ({len(real)})", real), *rows])


def _values(analyser: FaceAnalyser, files: list[bytes], make: Make) -> Iterator[dict[str, float]]:
    """Of the largest face, where one is found at all."""
    for file in files:
        pixels = np.ascontiguousarray(make(decode(file)))
        [result] = analyser.analyse([PictureJob(Picture(pixels, 1), Selection.LARGEST)])
        for face in result.faces:
            if face.signals:
                yield {signal.name: signal.value for signal in face.signals}


def _percentiles(values: list[dict[str, float]]) -> str:
    told = []
    for name in MEASURES:
        at = np.percentile([value[name] for value in values], [50, 95, 99, 100])
        told.append(f"{name} " + "/".join(f"{number:.1f}" for number in at))
    return "; ".join(told)


def _row(title: str, values: list[dict[str, float]]) -> str:
    cells = [[value[name] >= THRESHOLDS[name] for value in values] for name in MEASURES]
    cells.append([any(cell[place] for cell in cells) for place in range(len(values))])
    rates = [wilson(sum(cell), len(cell)) for cell in cells]
    told = [f"{rate.estimate:.1%}" for rate in rates]
    told[-1] += f" [{rates[-1].low:.1%}, {rates[-1].high:.1%}]"
    return f"| {title} | " + " | ".join(told) + " |"
