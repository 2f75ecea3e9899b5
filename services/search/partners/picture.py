"""The picture that goes to a partner: the face that is searched, and of other people nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image, ImageDraw

from services.rpc.v1 import picture_pb2

MAX_SIDE = 4096  # the most that the gate gives: a crop is taken from the picture at its full size, or nearly
_MARGIN = 0.6  # of the face's larger side, on each side: what a detector needs around a face
_BLANK = (128, 128, 128)


class Renderer(Protocol):
    """Untrusted bytes in, upright pixels out; `services.rpc.casework.PictureClient`."""

    def render(self, image: bytes, *, max_side: int, as_jpeg: bool = False) -> picture_pb2.RenderedPicture: ...


@dataclass(frozen=True, slots=True)
class PartnerPicture:
    """`form` says in the log what was sent: "as_received" or "cropped"."""

    content: bytes
    form: str


def picture_for(probe: bytes, answer: Mapping[str, Any], renderer: Renderer) -> PartnerPicture:
    """The file as received where one face was found in it: its SHA-256 is then the same in both logs. Where there are
    several, the searched face is cut out, and what the cutting leaves of other faces is covered. Raises ImageRefused,
    Overloaded, DependencyUnavailable."""
    faces = answer["faces"]
    if len(faces) == 1:
        return PartnerPicture(probe, "as_received")
    rendered = renderer.render(probe, max_side=MAX_SIDE)
    # The gate has made these pixels itself: they are safe to decode here.
    with Image.open(io.BytesIO(rendered.content)) as image:
        upright = image.convert("RGB")
    boxes = [_scaled(face["box"], 1 / rendered.scale) for face in faces]
    searched = boxes[answer["face"]]
    draw = ImageDraw.Draw(upright)
    kept = upright.crop(searched)
    for box in boxes:
        if box is not searched:
            draw.rectangle(box, fill=_BLANK)
    upright.paste(kept, searched[:2])  # where another face's box reaches into it
    content = io.BytesIO()
    upright.crop(_with_margin(searched, upright.size)).save(content, "PNG")
    return PartnerPicture(content.getvalue(), "cropped")


_Box = tuple[int, int, int, int]


def _scaled(box: Mapping[str, float], scale: float) -> _Box:
    left, top = box["x"] * scale, box["y"] * scale
    return (
        max(0, int(left)),
        max(0, int(top)),
        int(left + box["width"] * scale) + 1,
        int(top + box["height"] * scale) + 1,
    )


def _with_margin(box: _Box, size: tuple[int, int]) -> _Box:
    margin = int(_MARGIN * max(box[2] - box[0], box[3] - box[1]))
    return (
        max(0, box[0] - margin),
        max(0, box[1] - margin),
        min(size[0], box[2] + margin),
        min(size[1], box[3] + margin),
    )
