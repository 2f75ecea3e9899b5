"""Bytes to pixels, inside a gate worker. Nothing here is trusted to end, to fit in memory or to survive."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib

import pillow_heif
from PIL import AvifImagePlugin, Image, ImageFile

from services.embed.gate import colour
from services.embed.gate.formats import count_gif_frames, recognise_format
from services.embed.gate.jpeg import UncommonJpeg, decode_jpeg, orientation_of
from services.embed.gate.limits import GateLimits, TooManyPixels, Undecodable, check_pixels
from services.embed.gate.png import check_rows
from services.embed.gate.tails import check_tail
from services.embed.ports import DecodedImage

_ORIENTATION = 0x0112
_COUNTED_FRAMES = 64  # counting stops here: a chain of frames can be made endless
# Pillow's decoders report a broken file with any of these.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    AttributeError,
    RuntimeError,
    ZeroDivisionError,
    OverflowError,
    NotImplementedError,
    AssertionError,
    struct.error,
    zlib.error,
)


def prepare_decoders(limits: GateLimits) -> None:
    """Load every allowed decoder now: later no file can be opened. One thread each, strict."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # The gate checks the header itself; this is for what a later part of a file claims.
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.register_heif_opener(thumbnails=False)
    warnings.simplefilter("ignore")
    Image.init()
    _warm_up()


def _warm_up() -> None:
    """Run the common path once, so that the first picture does not pay for lazy imports and page faults."""
    sample = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(sample, "JPEG")
    limits = GateLimits(max_pixels=4096, cpu_s=1, memory_bytes=0)
    decode(memoryview(sample.getvalue()), memoryview(bytearray(64 * 64 * 3)), limits)


def decode(data: memoryview, pixels: memoryview, limits: GateLimits) -> DecodedImage:
    """Decode the first frame into `pixels` (8-bit sRGB, blue first, rows without gaps).

    Raises Undecodable, TooManyPixels, MemoryError.
    """
    name = recognise_format(bytes(data[:64]))
    if name is None:
        raise Undecodable("not an allowed format")
    if name == "JPEG":
        try:
            return decode_jpeg(data, pixels, limits)
        except UncommonJpeg:
            pass  # Pillow's reader accepts more headers
    return _decode_with_pillow(name, data, pixels, limits)


def _decode_with_pillow(name: str, data: memoryview, pixels: memoryview, limits: GateLimits) -> DecodedImage:
    try:
        check_tail(name, data)
        _check_start(name, data)
        # MPO is a JPEG with further pictures behind it; the first one counts.
        with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"] if name == "JPEG" else [name]) as picture:
            check_pixels(*picture.size, limits)
            _check_strips(picture)
            picture.load()
            _check_palette(picture)
            if name == "PNG":
                check_rows(picture, data)
            orientation = _orientation(picture)
            converted = colour.to_srgb(picture, picture.info.get("icc_profile"))
            check_pixels(*converted.size, limits)
            colour.write_bgr(converted, pixels)
            return DecodedImage(name, *converted.size, orientation, _frame_count(picture, data))
    except (Undecodable, TooManyPixels, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error)) from error
    except _DECODER_ERRORS as error:
        if "out of memory" in str(error).lower():
            raise MemoryError(str(error)) from error
        raise Undecodable(f"{type(error).__name__}: {error}") from error


def _orientation(picture: Image.Image) -> int:
    """Formats that turn their pixels themselves (HEIC, AVIF through its own boxes) leave 1 here."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block does not make the picture wrong, and fails in many ways
        return orientation_of(picture.info.get("exif", b""))
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_start(name: str, data: memoryview) -> None:
    """Pillow shows a BMP whose pixels are said to begin within its headers, and shows it shifted."""
    if name == "BMP" and len(data) >= 34:
        pixels_at, header_bytes, coding = (int.from_bytes(data[at : at + 4], "little") for at in (10, 14, 30))
        masks_bytes = 12 if header_bytes == 40 and coding == 3 else 0
        if pixels_at < 14 + header_bytes + masks_bytes:
            raise Undecodable("pixels that begin within the header")


def _check_palette(picture: Image.Image) -> None:
    """Pillow shows a PNG that numbers colours and has none as black."""
    if picture.format == "PNG" and picture.mode == "P" and picture.palette is None:
        raise Undecodable("colours by number, and no palette")


def _check_strips(picture: Image.Image) -> None:
    """Pillow leaves what a TIFF has no strip, tile or plane for black, and says nothing."""
    if picture.format != "TIFF":
        return
    tags = picture.tag_v2  # type: ignore[attr-defined]
    width, height = picture.size
    across, down = (tags.get(322, 0), tags.get(323, 0)) if 324 in tags else (width, tags.get(278, height))
    if min(across, down) < 1:
        raise Undecodable("strips or tiles without a size")
    planes = tags.get(277, 1) if tags.get(284, 1) == 2 else 1
    needed = math.ceil(width / across) * math.ceil(height / down) * planes
    found = len(tags.get(324, ()) or tags.get(273, ()))
    if found < needed:
        raise Undecodable(f"{found} strips or tiles of {needed}")


def _frame_count(picture: Image.Image, data: memoryview) -> int:
    """Frames in the file; those of GIF and TIFF, which no header tells, are counted up to _COUNTED_FRAMES."""
    if picture.format == "GIF":
        return count_gif_frames(data, _COUNTED_FRAMES)
    if picture.format != "TIFF":
        claimed = max(1, int(getattr(picture, "n_frames", 1)))
        # A PNG says how many frames there are before they come: a number that anybody can write.
        return min(claimed, bytes(data).count(b"fcTL") + 1) if picture.format == "PNG" and claimed > 1 else claimed
    count = 1
    try:
        while count < _COUNTED_FRAMES:
            picture.seek(count)
            count += 1
    except _DECODER_ERRORS:
        return count
    return count
