"""Small pictures for the contact sheet: the probe with its faces marked, a reference, a placeholder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from services.local.demo.plan import Subject
from services.local.demo.results import ProbeResult

PAPER = (246, 245, 241)
CARD = (255, 255, 255)
INK = (31, 42, 48)
MUTED = (107, 119, 128)
LINE = (226, 224, 216)
ACCENT = (38, 112, 111)
CAUTION = (168, 112, 32)
ALERT = (168, 58, 48)
_SILHOUETTE = (218, 221, 219)
_SILHOUETTE_GROUND = (238, 239, 236)
# Context around a single face, in widths of its box: enough to see the picture that the face stands in.
_CONTEXT = 2.7


def probe_image(result: ProbeResult, pictures: Path, width: int, height: int) -> Image.Image:
    """The whole picture where several faces were found, the surroundings of the face where it is the only one.

    Every face has a frame; that of the searched one is stronger.
    """
    opened = _open(pictures / result.probe.picture)
    chosen = result.faces[result.face]
    if len(result.faces) > 1:
        region = (0.0, 0.0, float(opened.width), float(opened.height))
    else:
        region = _around(chosen, opened, width / height)
    left, top, right, bottom = region
    scale = min(width / (right - left), height / (bottom - top))
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    shown = opened.resize(size, Image.Resampling.LANCZOS, box=region)
    draw = ImageDraw.Draw(shown)
    for index, box in enumerate(result.faces):
        x, y = (box["x"] - left) * scale, (box["y"] - top) * scale
        frame = (x, y, x + box["width"] * scale, y + box["height"] * scale)
        is_chosen = index == result.face
        draw.rounded_rectangle(frame, 6, outline=(255, 255, 255), width=4 if is_chosen else 2)
        if is_chosen:
            draw.rounded_rectangle(frame, 6, outline=ACCENT, width=2)
    return shown


def _around(box: Mapping[str, float], image: Image.Image, aspect: float) -> tuple[float, float, float, float]:
    height = min(float(image.height), box["height"] * _CONTEXT)
    width = min(float(image.width), height * aspect)
    height = min(height, width / aspect) if width < height * aspect else height
    centre_x = box["x"] + box["width"] / 2
    centre_y = box["y"] + box["height"] * 0.62
    left = min(max(0.0, centre_x - width / 2), image.width - width)
    top = min(max(0.0, centre_y - height / 2), image.height - height)
    return left, top, left + width, top + height


def reference_image(subject: Subject, pictures: Path, side: int) -> Image.Image:
    """The face of an enrolled picture."""
    left, top, size = subject.crop
    opened = _open(pictures / subject.picture)
    return opened.resize((side, side), Image.Resampling.LANCZOS, box=(left, top, left + size, top + size))


def placeholder_image(side: int) -> Image.Image:
    """What stands for a synthetic reference, which has no picture."""
    large = side * 4
    image = Image.new("RGB", (large, large), _SILHOUETTE_GROUND)
    draw = ImageDraw.Draw(image)
    draw.ellipse((large * 0.35, large * 0.22, large * 0.65, large * 0.58), fill=_SILHOUETTE)
    draw.ellipse((large * 0.18, large * 0.66, large * 0.82, large * 1.5), fill=_SILHOUETTE)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def rounded(image: Image.Image, radius: int, ground: tuple[int, int, int]) -> Image.Image:
    """The image with round corners on a ground."""
    mask = Image.new("L", (image.width * 4, image.height * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius * 4, fill=255)
    out = Image.new("RGB", image.size, ground)
    out.paste(image, (0, 0), mask.resize(image.size, Image.Resampling.LANCZOS))
    return out


def _open(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGBA")
    ground = Image.new("RGBA", upright.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, upright).convert("RGB")
