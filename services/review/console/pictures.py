"""Pictures as the console shows them: decoded, marked with who looks at them, encoded anew as JPEG.

Whatever the stored bytes were, a browser only ever gets a JPEG that was made here.
"""

from __future__ import annotations

import io
from datetime import datetime

from PIL import Image, ImageDraw, ImageFont

from services.shared.clock import rfc3339

# On every picture. Sandboxed, so that a picture opened by itself can do nothing.
PICTURE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Content-Disposition": 'inline; filename="likeness.jpg"',
}
MAX_SIDE_PX = 2048
THUMBNAIL_SIDE_PX = 224
_QUALITY = 90
_QUALITY_SMALL = 78
_OPACITY = 34  # of 255: found when a copy turns up elsewhere, faint enough to compare faces through it
_TILT_DEGREES = 24


def shown(image: Image.Image, person_id: str, at: datetime, max_side_px: int = MAX_SIDE_PX) -> bytes:
    """The picture as a JPEG of at most `max_side_px`, with the viewer's id and the time burnt into it."""
    picture = image.convert("RGB")
    if max(picture.size) > max_side_px:
        picture.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    marked = _marked(picture, f"{person_id}  {rfc3339(at)[:16].replace('T', ' ')}Z")
    out = io.BytesIO()
    small = max_side_px <= THUMBNAIL_SIDE_PX
    marked.save(out, "JPEG", quality=_QUALITY_SMALL if small else _QUALITY, optimize=small)
    return out.getvalue()


def _marked(picture: Image.Image, text: str) -> Image.Image:
    """The text in rows across the picture, each letter light with a dark edge, so that it stands on any ground.

    Letters and gaps follow from the shorter side: a face in a long strip has the mark over it as any other has.
    """
    longest, side = max(picture.size), min(picture.size)
    font = ImageFont.load_default(size=max(9, side // 34))
    left, top, right, bottom = font.getbbox(text)
    width, height = int(right - left), int(bottom - top)
    layer = Image.new("RGBA", (int(longest * 1.5), int(longest * 1.5)), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    step_y = max(height * 7, side // 4)
    for row, y in enumerate(range(0, layer.height, step_y)):
        for x in range(-(row % 2) * width, layer.width, width + side // 6):
            draw.text((x, y), text, font=font, fill=(255, 255, 255, _OPACITY), stroke_width=1,
                      stroke_fill=(0, 0, 0, _OPACITY // 2))  # fmt: skip
    tilted = layer.rotate(_TILT_DEGREES, resample=Image.Resampling.BILINEAR)
    x, y = (tilted.width - picture.width) // 2, (tilted.height - picture.height) // 2
    overlay = tilted.crop((x, y, x + picture.width, y + picture.height))
    base = picture.convert("RGBA")
    base.alpha_composite(overlay)
    return base.convert("RGB")
