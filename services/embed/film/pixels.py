"""A decoded frame as 8-bit BGR in square pixels, without the combs of interlacing. Every frame for itself, so that the
same frame gives the same pixels whichever frames were decoded before it."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideData
from av.video.reformatter import Colorspace, Interpolation

from services.embed.film.limits import FilmLimits, Refused

Frame = npt.NDArray[np.uint8]

# Signs of the display matrix: where the stored picture's axes point once it is shown, each along itself or along the
# other -> the EXIF orientation that turns the stored pixels upright, mirrored ones too.
_ALONG = {(1, 1): 1, (-1, 1): 2, (-1, -1): 3, (1, -1): 4}
_ACROSS = {(1, 1): 5, (1, -1): 6, (-1, -1): 7, (-1, 1): 8}
_MATRIX = struct.Struct("=5i")  # the first five of nine numbers
_SQUAREST, _OBLONGEST = Fraction(1, 4), Fraction(4)
# Heights that are recorded in two fields, whatever the file says of itself.
_FIELD_HEIGHTS = frozenset({480, 486, 576, 1080, 1088})
_COMB_STEP = 20  # grey levels by which a line stands out from both its neighbours
_COMBED_SHARE = 0.004  # of all pixels: what a walking person leaves; a still scene leaves none
_HD_HEIGHT = 720  # from here on files that do not name their colours mean BT.709, below BT.601


def orientation_of(frame: av.VideoFrame) -> int:
    """EXIF orientation of the display matrix; of one that is no quarter turn that of the nearest, 1 where there is
    none."""
    found = frame.side_data.get("DISPLAYMATRIX")
    numbers = bytes(found) if isinstance(found, SideData) else b""
    if len(numbers) < _MATRIX.size:
        return 1
    across_x, across_y, _, down_x, down_y = _MATRIX.unpack_from(numbers)
    if abs(across_x) + abs(down_y) >= abs(across_y) + abs(down_x):
        return _ALONG.get((_sign(across_x), _sign(down_y)), 1)
    return _ACROSS.get((_sign(across_y), _sign(down_x)), 1)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """The size at which pixels are square: the side that they are too short on is stretched."""
    if aspect is None or aspect == 1 or not _SQUAREST <= aspect <= _OBLONGEST:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def write_frame(
    frame: av.VideoFrame, aspect: Fraction | None, pixels: memoryview, limits: FilmLimits
) -> tuple[int, int]:
    """Write rows without gaps; width and height as written. Raises Refused for a frame over the pixel limit."""
    width, height = square_size(frame.width, frame.height, aspect)
    if width < 1 or height < 1 or width * height > limits.max_pixels:
        raise Refused("film_frame_too_large", f"{width} x {height} pixels")
    stored = _bgr(frame)
    if frame.interlaced_frame or frame.height in _FIELD_HEIGHTS:
        stored = without_combs(stored)
    target = np.frombuffer(pixels, np.uint8, width * height * 3).reshape(height, width, 3)
    if (width, height) == (frame.width, frame.height):
        target[:] = stored
    else:
        cv2.resize(stored, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
    return width, height


def _bgr(frame: av.VideoFrame) -> Frame:
    is_named = frame.colorspace in {int(space) for space in Colorspace if space != Colorspace.DEFAULT}
    source = None if is_named else (Colorspace.ITU709 if frame.height >= _HD_HEIGHT else Colorspace.ITU601)
    converted = frame.reformat(
        format="bgr24",
        src_colorspace=source,
        interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
        threads=1,  # no new thread can be started here
    )
    return converted.to_ndarray()  # type: ignore[return-value]


def without_combs(picture: Frame) -> Frame:
    """The picture, or where its two fields show different moments, the upper field alone at full height."""
    if picture.shape[0] < 8 or comb_share(picture) < _COMBED_SHARE:
        return picture
    height, width = picture.shape[:2]
    field = picture[0::2]
    # Line y of the field is line 2 y of the picture.
    lines = np.minimum(np.arange(height, dtype=np.float32) / 2, len(field) - 1)
    columns = np.arange(width, dtype=np.float32)
    across, down = np.meshgrid(columns, lines)
    return cv2.remap(field, across, down, cv2.INTER_LINEAR)  # type: ignore[return-value]


def comb_share(picture: Frame) -> float:
    """Share of pixels whose line stands out from both neighbours while those are alike; one column in four is looked
    at."""
    grey = picture[:, ::4, 1].astype(np.int16)
    up, down = grey[1:-1] - grey[:-2], grey[1:-1] - grey[2:]
    stands_out = (np.minimum(np.abs(up), np.abs(down)) > _COMB_STEP) & ((up > 0) == (down > 0))
    neighbours_alike = np.abs(grey[:-2] - grey[2:]) < _COMB_STEP // 2
    return float((stands_out & neighbours_alike).mean())
