"""Drawn portraits that depict nobody, each a little different: what stands in for people in tests and screenshots."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from services.local.demo.drawing import REFERENCE_SETTING, Setting, draw_face

_GROUNDS = ((226, 229, 228), (214, 221, 228), (231, 226, 217), (218, 226, 219))
_JUMPERS = ((86, 110, 122), (120, 92, 84), (72, 92, 78), (98, 88, 118), (60, 66, 78))


def portrait(number: int, size_px: int = 720, *, is_probe: bool = False) -> bytes:
    """The portrait of drawn person `number` as JPEG; as a probe in other light, leaning, softer."""
    draws = np.random.default_rng(number)
    setting = Setting(
        background=_GROUNDS[number % len(_GROUNDS)],
        jumper=_JUMPERS[number % len(_JUMPERS)],
        turned_degrees=-5.0 if is_probe else float(draws.uniform(-2, 2)),
        light=(1.06, 0.78) if is_probe else REFERENCE_SETTING.light,
    )
    with Image.open(io.BytesIO(draw_face(setting, size_px, 95))) as opened:
        image = opened.convert("RGB")
    wide, tall = draws.uniform(0.86, 1.14), draws.uniform(0.92, 1.06)
    image = _stretched(image, wide, tall)
    # Complexions and white balances differ; nobody is green.
    tint = draws.uniform(0.72, 1.06) * np.array([1.0, *np.sort(draws.uniform(0.9, 1.0, 2))[::-1]])
    image = Image.fromarray(np.clip(np.asarray(image) * tint, 0, 255).astype(np.uint8))
    if is_probe:
        image = image.filter(ImageFilter.GaussianBlur(1.4))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=70 if is_probe else 90)
    return out.getvalue()


def marked_as_generated(jpeg: bytes) -> bytes:
    """The same picture whose file says what it is, as honest generators and their editors write it (IPTC, in XMP)."""
    source = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    said = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><DigitalSourceType>{source}</DigitalSourceType></x:xmpmeta>'
    segment = b"http://ns.adobe.com/xap/1.0/\x00" + said.encode()
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def _stretched(image: Image.Image, wide: float, tall: float) -> Image.Image:
    width, height = image.size
    resized = image.resize((round(width * wide), round(height * tall)), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", image.size, image.getpixel((4, 4)))
    canvas.paste(resized, ((width - resized.width) // 2, (height - resized.height) // 2))
    return canvas
