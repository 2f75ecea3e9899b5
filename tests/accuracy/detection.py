"""Which faces are found, and whether their templates still work: turned, dark, masked, cut off, small; and crowds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from services.embed.faces.analyser import FaceAnalyser, PictureJob
from services.embed.faces.picture import Picture
from services.embed.ports import Pixels, Selection, Tensor
from services.local.evaluation.labelled_set import LabelledSet
from services.shared.biometric import DetectedFace
from tests.accuracy.naive import decode
from tests.accuracy.quality_data import in_process_analyser
from tests.accuracy.worse import darkened, masked, with_dark_glasses
from tests.support.faces import shared_data

ANGLES = tuple(range(15, 360, 15))
_ALIKE = 0.6  # to the template of the picture as it is: well over any two people of the set
Change = Callable[[Pixels, DetectedFace], Pixels]


def turned(pixels: Pixels, degrees: float) -> Pixels:
    """Nothing cut off, grey around."""
    height, width = pixels.shape[:2]
    side = int(np.hypot(height, width)) + 2
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    matrix[:, 2] += [(side - width) / 2, (side - height) / 2]
    return np.asarray(cv2.warpAffine(pixels, matrix, (side, side), borderValue=(127, 127, 127)), np.uint8)


def _cut_left(share: float) -> Change:
    """So much of the face's box lies outside the picture, at its left."""
    return lambda pixels, face: pixels[:, max(0, int(face.box.x + share * face.box.width)) :].copy()


def _cut_below(share: float) -> Change:
    return lambda pixels, face: pixels[: int(face.box.y + (1 - share) * face.box.height)].copy()


def _small(eyes_px: float) -> Change:
    def change(pixels: Pixels, face: DetectedFace) -> Pixels:
        factor = min(1.0, eyes_px / face.inter_eye_px)
        return np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)

    return change


def _on_a_large_picture(pixels: Pixels, face: DetectedFace) -> Pixels:
    """30 px between the eyes on 12 megapixels."""
    small = _small(30)(pixels, face)
    canvas = np.full((3000, 4000, 3), 110, np.uint8)
    canvas[1900 : 1900 + small.shape[0], 2700 : 2700 + small.shape[1]] = small
    return canvas


CHANGES: dict[str, Change] = {
    "as it is": lambda pixels, _face: pixels,
    "a tenth of the light, with noise": lambda pixels, _face: darkened(pixels, 0.1),
    "a twentieth of the light, without noise": lambda pixels, _face: (pixels * 0.05).astype(np.uint8),
    "surgical mask": lambda pixels, face: masked(pixels, np.array(face.landmarks)),
    "dark glasses": lambda pixels, face: with_dark_glasses(pixels, np.array(face.landmarks)),
    "mask and dark glasses": lambda pixels, face: with_dark_glasses(
        masked(pixels, np.array(face.landmarks)), np.array(face.landmarks)
    ),
    "a quarter of the face cut off at the side": _cut_left(0.25),
    "half of the face cut off at the side": _cut_left(0.5),
    "lower third of the face cut off": _cut_below(0.33),
    "12 px between the eyes": _small(12),
    "8 px between the eyes": _small(8),
    "30 px between the eyes, on 12 megapixels": _on_a_large_picture,
}


def detection_tables(labelled: LabelledSet, count: int) -> str:
    """Markdown: found and alike by change and by angle, and the group pictures."""
    analyser, _ = in_process_analyser()
    sample = [still for still in labelled.enrolled if still.split == "gallery"]
    stills = sample[:: max(1, len(sample) // count)][:count]
    pictures = [decode(still.path.read_bytes()) for still in stills]
    faces = [_largest(analyser, pixels) for pixels in pictures]
    known = [(pixels, face) for pixels, face in zip(pictures, faces, strict=True) if face is not None]
    lines = ["| change | found | template alike |", "|---|---|---|"]
    for name, change in CHANGES.items():
        lines.append(_row(name, [(change(pixels, face), face) for pixels, face in known], analyser))
    for angles in (ANGLES[:3] + ANGLES[-3:], ANGLES[3:8] + ANGLES[-8:-3], ANGLES[8:15]):
        views = [(turned(pixels, angles[at % len(angles)]), face) for at, (pixels, face) in enumerate(known)]
        low, high = min(min(a, 360 - a) for a in angles), max(min(a, 360 - a) for a in angles)
        lines.append(_row(f"turned by {low} to {high} degrees", views, analyser))
    return "\n".join([*lines, "", *_groups(analyser)])


def _row(name: str, views: Sequence[tuple[Pixels, DetectedFace]], analyser: FaceAnalyser) -> str:
    found = [_largest(analyser, pixels) for pixels, _face in views]
    alike = [_cosine(one, face) >= _ALIKE for one, (_pixels, face) in zip(found, views, strict=True) if one is not None]
    return f"| {name} | {len(alike)} of {len(views)} | {sum(alike)} |"


def _cosine(one: DetectedFace, other: DetectedFace) -> float:
    vectors: list[Tensor] = [face.template.vector for face in (one, other) if face.template is not None]
    return float(vectors[0] @ vectors[1])


def _groups(analyser: FaceAnalyser) -> list[str]:
    lines = ["| group picture | pixels | faces found | px between the eyes |", "|---|---|---|---|"]
    root = shared_data() / "faces"
    for path in sorted(path for path in root.glob("*/group*/*.jpg")):
        pixels = decode(path.read_bytes())
        faces = analyser.analyse([PictureJob(Picture(pixels, 1), Selection.NONE)])[0].faces
        eyes = sorted(face.inter_eye_px for face in faces)
        sizes = f"{eyes[0]:.0f} to {eyes[-1]:.0f}" if eyes else ""
        lines.append(f"| {path.stem} | {pixels.shape[1]} x {pixels.shape[0]} | {len(faces)} | {sizes} |")
    return lines


def _largest(analyser: FaceAnalyser, pixels: Pixels) -> DetectedFace | None:
    if min(pixels.shape[:2]) < 1:
        return None
    [result] = analyser.analyse([PictureJob(Picture(np.ascontiguousarray(pixels), 1), Selection.LARGEST)])
    return next((face for face in result.faces if face.template is not None), None)
