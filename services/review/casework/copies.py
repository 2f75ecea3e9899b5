"""Which face of a working copy is the one that was chosen in the original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from services.review.enhancement import carried
from services.review.model import Enhancement, ProbeFace, ProbeImage


def chosen(probe: ProbeImage) -> ProbeFace | None:
    """The face that the operator has chosen, in pixels of the upright original; None as long as nobody has."""
    return next((face for face in probe.faces if face.index == probe.face), None)


def on_working_copy(probe: ProbeImage, face: ProbeFace) -> ProbeFace:
    """The face in pixels of the original's own working copy, which is smaller where the original is very large."""
    scale = probe.working_scale
    left, top, width, height = (side / scale for side in face.box)
    landmarks = tuple((x / scale, y / scale) for x, y in face.landmarks)
    return replace(face, box=(left, top, width, height), landmarks=landmarks, inter_eye_px=face.inter_eye_px / scale)


def same_face(probe: ProbeImage, made: Enhancement, found: Sequence[ProbeFace]) -> ProbeFace | None:
    """Of the faces of the copy the one that lies where the recipe has put the chosen one.

    None where none lies there: the recipe has cut it away, or it is found no more. Never another person's.
    """
    face = chosen(probe)
    if face is None:
        return None
    size = (probe.working_width, probe.working_height)
    place = carried(_middle(on_working_copy(probe, face)), size, made.steps)
    there = [one for one in found if _holds(one, place)]
    return min(there, key=lambda one: math.dist(_middle(one), place), default=None)


def _middle(face: ProbeFace) -> tuple[float, float]:
    return fmean(x for x, _ in face.landmarks), fmean(y for _, y in face.landmarks)


def _holds(face: ProbeFace, place: tuple[float, float]) -> bool:
    left, top, width, height = face.box
    return left <= place[0] <= left + width and top <= place[1] <= top + height
