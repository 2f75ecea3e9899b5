"""Crowds of twelve put together of single faces, some turned in their place: who is found, and is it still them?"""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np

from services.embed.faces.analyser import FaceAnalyser, PictureJob
from services.embed.faces.picture import Picture
from services.embed.ports import Pixels, Selection
from services.local.evaluation.labelled_set import LabelledSet
from services.shared.biometric import DetectedFace
from tests.accuracy.naive import decode

_TURNS = (0, 0, 90, 180, 0, 45, 0, 270, 0, 135, 225, 315)
_SIZES = (60, 30, 16, 12)  # px between the eyes
_CROWDS = 3
_ALIKE = 0.5
_ROOM = 5  # sides of a place, in distances between the eyes
_ACROSS = 4


def crowds_table(labelled: LabelledSet, analyser: FaceAnalyser) -> str:
    faces = _single_faces(labelled, analyser)
    lines = ["| between the eyes | upright found | alike | turned found | alike | found where nobody was put |"]
    lines.append("|---" * 6 + "|")
    for eyes_px in _SIZES:
        random, seen = np.random.default_rng(5), Counter[str]()
        for _ in range(_CROWDS):
            seen += _judged(analyser, [faces[place] for place in random.choice(len(faces), 12, replace=False)], eyes_px)
        cells = [
            f"{seen[kind]} of {seen['put ' + kind.partition(' ')[0]]}"
            for kind in ("upright found", "upright alike", "turned found", "turned alike")
        ]
        lines.append(f"| {eyes_px} px | {' | '.join(cells)} | {seen['others']} |")
    return "\n".join(lines)


def _single_faces(labelled: LabelledSet, analyser: FaceAnalyser) -> list[tuple[Pixels, DetectedFace]]:
    chosen = np.random.default_rng(3).choice(len(labelled.stills), 60, replace=False)
    found = []
    for place in chosen:
        pixels = decode(labelled.stills[place].path.read_bytes())
        [result] = analyser.analyse([PictureJob(Picture(pixels, 1), Selection.LARGEST)])
        found += [(pixels, face) for face in result.faces if face.template is not None]
    return found


def _judged(analyser: FaceAnalyser, members: list[tuple[Pixels, DetectedFace]], eyes_px: int) -> Counter[str]:
    side = eyes_px * _ROOM
    canvas = np.full((3 * side, _ACROSS * side, 3), 120, np.uint8)
    for number, (member, degrees) in enumerate(zip(members, _TURNS, strict=True)):
        down, across = divmod(number, _ACROSS)
        place = np.s_[down * side : (down + 1) * side, across * side : (across + 1) * side]
        canvas[place] = _put(*member, eyes_px, degrees, side)
    [result] = analyser.analyse([PictureJob(Picture(canvas, 1), Selection.ALL)])
    seen, matched = Counter[str](), set()
    for number, ((_, face), degrees) in enumerate(zip(members, _TURNS, strict=True)):
        down, across = divmod(number, _ACROSS)
        kind = "turned" if degrees else "upright"
        seen[f"put {kind}"] += 1
        index = _nearest(result.faces, (across + 0.5) * side, (down + 0.5) * side, within=1.2 * eyes_px)
        if index is None:
            continue
        matched.add(index)
        seen[f"{kind} found"] += 1
        template, own = result.faces[index].template, face.template
        is_alike = template is not None and own is not None and float(template.vector @ own.vector) > _ALIKE
        seen[f"{kind} alike"] += is_alike
    seen["others"] += len(result.faces) - len(matched)
    return seen


def _put(pixels: Pixels, face: DetectedFace, eyes_px: int, degrees: int, side: int) -> Pixels:
    """The face in the middle of a square, so large and turned by so much."""
    scale = eyes_px / face.inter_eye_px
    middle = (face.box.x + face.box.width / 2, face.box.y + face.box.height / 2)
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, degrees, scale), np.float64)
    matrix[:, 2] += [side / 2 - middle[0], side / 2 - middle[1]]
    soft = cv2.GaussianBlur(pixels, (0, 0), 0.5 / scale) if scale < 0.6 else pixels
    return np.asarray(cv2.warpAffine(soft, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _nearest(faces: tuple[DetectedFace, ...], x: float, y: float, within: float) -> int | None:
    apart = [np.hypot(face.box.x + face.box.width / 2 - x, face.box.y + face.box.height / 2 - y) for face in faces]
    best = min(range(len(faces)), key=lambda index: apart[index], default=None)
    return best if best is not None and apart[best] < within else None
