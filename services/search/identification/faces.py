"""Which face of the probe is searched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from services.rpc.v1 import embed_pb2
from services.search.identification.answer import face_list
from services.shared.biometric import DetectedFace, FaceTemplate, ImageAnalysis
from services.shared.errors import DependencyUnavailable, FaceChoiceNeeded, InvalidRequest, NoFaceFound

# About 6 KB each; whoever has a larger crowd crops it.
MAX_CHIPS = 64


def selection(face: int | None) -> embed_pb2.AnalyseRequest.Selection.ValueType:
    """Which faces embed shall template for the face that the caller chose, or did not."""
    return embed_pb2.AnalyseRequest.SOLE if face is None else embed_pb2.AnalyseRequest.BY_INDEX


def _with_chips(faces: Sequence[DetectedFace]) -> list[dict[str, Any]]:
    """Faces numbered in reading order, the first of them with a small JPEG each to pick from."""
    chips = [base64.b64encode(face.chip).decode() for face in faces[:MAX_CHIPS]]
    listed = face_list(faces)
    for document, chip in zip(listed, chips, strict=False):
        document["chip_jpeg_base64"] = chip
    return listed


def without_chips(context: Mapping[str, Any]) -> dict[str, Any]:
    """A problem's context as it is stored: pictures of people who may be nobody's business are not kept."""
    faces = context.get("faces")
    if not isinstance(faces, list):
        return dict(context)
    kept = [{name: value for name, value in face.items() if name != "chip_jpeg_base64"} for face in faces]
    return {**context, "faces": kept}


def choose_face(analysis: ImageAnalysis, face: int | None) -> tuple[int, FaceTemplate]:
    """The index of the face to search and its template; the machine never picks among several.

    Raises NoFaceFound, FaceChoiceNeeded (its context lists the faces), InvalidRequest (no face of that index).
    """
    faces = analysis.faces
    if not faces:
        raise NoFaceFound(
            "No face was found in the image.",
            advice="Use an image in which the face is larger, sharper or less turned away.",
        )
    if face is None and len(faces) > 1:
        raise FaceChoiceNeeded(
            f"{len(faces)} faces were found and none was chosen.",
            advice="Send the request again with the field `face` set to the index of the face to search.",
            context={"faces": _with_chips(faces)},
        )
    index = face or 0
    if index >= len(faces):
        raise InvalidRequest(
            f"There is no face {index}: {len(faces)} found.",
            advice=f"Set `face` from 0 to {len(faces) - 1}.",
            context={"fields": [{"field": "face", "problem": f"From 0 to {len(faces) - 1}."}]},
        )
    template = faces[index].template
    if template is None:
        raise DependencyUnavailable("embed gave no template of the face.", advice="Try again; tell the operators.")
    return index, template
