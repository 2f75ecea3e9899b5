"""A drawn face that depicts nobody, for the watchlist on which no real person is put even as a demonstration."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Shape = Callable[[ImageDraw.ImageDraw], None]
_SIZE = 900


@dataclass(frozen=True, slots=True)
class Setting:
    """What changes between two pictures of the same drawn face."""

    background: Colour
    jumper: Colour
    turned_degrees: float = 0.0
    # Brightness from the left edge to the right one.
    light: tuple[float, float] = (1.0, 1.0)


REFERENCE_SETTING = Setting(background=(226, 229, 228), jumper=(86, 110, 122))
PROBE_SETTING = Setting(background=(196, 206, 214), jumper=(120, 92, 84), turned_degrees=-6.0, light=(1.08, 0.72))

_SKIN: Colour = (224, 180, 152)
_HAIR: Colour = (74, 58, 48)


def draw_face(setting: Setting, size_px: int, jpeg_quality: int) -> bytes:
    """The face in a setting, as a square JPEG. The same arguments always give the same bytes of one Pillow version."""
    image = _portrait(setting).rotate(
        setting.turned_degrees, resample=Image.Resampling.BICUBIC, fillcolor=setting.background
    )
    light = np.linspace(*setting.light, _SIZE)[None, :, None]
    lit = Image.fromarray(np.clip(np.asarray(image, dtype=np.float64) * light, 0, 255).astype(np.uint8))
    out = io.BytesIO()
    lit.resize((size_px, size_px), Image.Resampling.LANCZOS).save(out, "JPEG", quality=jpeg_quality)
    return out.getvalue()


def _portrait(setting: Setting) -> Image.Image:
    canvas = _Canvas(Image.new("RGB", (_SIZE, _SIZE), setting.background))
    canvas.add(_scaled(setting.background, 0.92), _ellipses((450, 520, 420, 460)), 120, 0.8)
    canvas.add(_HAIR, _ellipses((450, 350, 232, 262)), 5)
    canvas.add(_HAIR, _blocks((224, 350, 300, 500, 30), (600, 350, 676, 500, 30)), 5)
    canvas.add(setting.jumper, _blocks((110, 735, 790, 1100, 150)), 3)
    canvas.add(_scaled(_SKIN, 0.86), _polygon((372, 600), (528, 600), (548, 770), (450, 830), (352, 770)), 6)
    canvas.add(_scaled(_SKIN, 0.9), _ellipses((252, 430, 34, 58), (648, 430, 34, 58)), 3)
    outline = _ellipses((450, 400, 196, 238), (450, 500, 160, 186))
    canvas.add(_SKIN, outline, 4)
    canvas.add_inside(outline, 4, _draw_relief)
    for centre_x in (368, 532):
        _draw_eye(canvas, centre_x)
    brows = _lines(17, ((312, 372), (350, 352), (415, 362)), ((588, 372), (550, 352), (485, 362)))
    canvas.add(_HAIR, brows, 4, 0.92)
    canvas.add(_HAIR, _polygon(*_FRINGE), 4)
    canvas.add(_scaled(_HAIR, 1.45), _lines(26, ((300, 250), (380, 180), (480, 160), (570, 190))), 16, 0.6)
    return canvas.image


_FRINGE = (
    *((246, 420), (236, 250), (330, 140), (450, 110), (580, 140), (664, 250), (654, 420)),
    *((636, 330), (590, 250), (500, 228), (380, 262), (300, 270), (266, 330)),
)


def _draw_relief(canvas: _Canvas) -> None:
    dark, middle, light = _scaled(_SKIN, 0.72), _scaled(_SKIN, 0.86), _scaled(_SKIN, 1.1)
    canvas.add(middle, _blocks((230, 200, 300, 720, 1), (600, 200, 680, 720, 1)), 48, 0.9)
    canvas.add(light, _ellipses((450, 300, 110, 60)), 50, 0.6)
    canvas.add(light, _ellipses((345, 520, 50, 40), (555, 520, 50, 40)), 26, 0.55)
    canvas.add((226, 150, 130), _ellipses((335, 545, 46, 30), (565, 545, 46, 30)), 24, 0.45)
    canvas.add(dark, _ellipses((368, 415, 62, 34), (532, 415, 62, 34)), 18, 0.6)
    # Nose.
    canvas.add(middle, _polygon((428, 420), (412, 540), (432, 560), (440, 430)), 9, 0.9)
    canvas.add(light, _blocks((440, 420, 460, 535, 10)), 9, 0.8)
    canvas.add(dark, _ellipses((450, 562, 44, 14)), 8, 0.55)
    canvas.add(_scaled(_SKIN, 0.45), _ellipses((430, 560, 10, 6), (470, 560, 10, 6)), 3, 0.9)
    # Mouth.
    lips = ((378, 626), (420, 608), (450, 616), (480, 608), (522, 626), (490, 652), (450, 660), (410, 652))
    canvas.add((178, 96, 90), _polygon(*lips), 4, 0.95)
    canvas.add((112, 52, 52), _lines(7, ((380, 627), (420, 630), (450, 634), (480, 630), (520, 627))), 2, 0.95)
    canvas.add((214, 140, 132), _ellipses((450, 645, 32, 6)), 5, 0.7)
    canvas.add(middle, _ellipses((450, 684, 46, 10)), 9, 0.8)


def _draw_eye(canvas: _Canvas, x: int) -> None:
    upper = ((x - 46, 418), (x - 24, 399), (x, 394), (x + 24, 399), (x + 46, 418))
    opening = _polygon(*upper, (x + 22, 431), (x, 434), (x - 22, 431))

    def draw_iris(eye: _Canvas) -> None:
        eye.add((84, 96, 92), _ellipses((x, 413, 22, 22)), 1.5)
        eye.add((20, 18, 18), _ellipses((x, 413, 10, 10)), 1.2)
        eye.add((255, 255, 255), _ellipses((x + 8, 405, 5, 5)), 1)
        eye.add((120, 110, 104), _blocks((x - 50, 388, x + 50, 400, 1)), 5, 0.7)

    canvas.add((244, 240, 236), opening, 2)
    canvas.add_inside(opening, 2, draw_iris)
    canvas.add((48, 36, 32), _lines(8, tuple((px, py + 1) for px, py in upper)), 2, 0.95)
    canvas.add((120, 84, 70), _lines(4, ((x - 40, 422), (x, 436), (x + 40, 422))), 2, 0.6)


class _Canvas:
    """An image to which soft-edged shapes are added."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image

    def add(self, colour: Colour, shape: Shape, blur_px: float, strength: float = 1.0) -> None:
        mask = _mask(shape, blur_px).point(lambda value: value * strength)
        self.image.paste(Image.new("RGB", self.image.size, colour), (0, 0), mask)

    def add_inside(self, shape: Shape, blur_px: float, draw: Callable[[_Canvas], None]) -> None:
        """Let `draw` add to a copy and keep of it what lies within the shape."""
        layer = _Canvas(self.image.copy())
        draw(layer)
        self.image = Image.composite(layer.image, self.image, _mask(shape, blur_px))


def _mask(shape: Shape, blur_px: float) -> Image.Image:
    mask = Image.new("L", (_SIZE, _SIZE), 0)
    shape(ImageDraw.Draw(mask))
    return mask.filter(ImageFilter.GaussianBlur(blur_px))


def _ellipses(*each: tuple[int, int, int, int]) -> Shape:
    """Ellipses of (centre x, centre y, radius x, radius y)."""

    def draw(onto: ImageDraw.ImageDraw) -> None:
        for x, y, rx, ry in each:
            onto.ellipse((x - rx, y - ry, x + rx, y + ry), fill=255)

    return draw


def _blocks(*each: tuple[int, int, int, int, int]) -> Shape:
    """Rounded rectangles of (left, top, right, bottom, corner radius)."""

    def draw(onto: ImageDraw.ImageDraw) -> None:
        for left, top, right, bottom, radius in each:
            onto.rounded_rectangle((left, top, right, bottom), radius=radius, fill=255)

    return draw


def _polygon(*points: tuple[int, int]) -> Shape:
    return lambda onto: onto.polygon(points, fill=255)


def _lines(width: int, *each: Sequence[tuple[int, int]]) -> Shape:
    def draw(onto: ImageDraw.ImageDraw) -> None:
        for points in each:
            onto.line(tuple(points), fill=255, width=width, joint="curve")

    return draw


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue
