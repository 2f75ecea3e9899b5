"""JPEG, the common case: decoded strictly by libjpeg-turbo straight into shared memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import simplejpeg
from PIL import Image

from services.embed.gate import colour
from services.embed.gate.limits import GateLimits, Undecodable, check_pixels
from services.embed.gate.scans import essential
from services.embed.ports import DecodedImage

_START_OF_SCAN, _END, _EXIF, _ICC = 0xDA, 0xD9, 0xE1, 0xE2
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_ORIENTATION = 0x0112


class UncommonJpeg(Exception):
    """A header that is odd but not wrong (an unusual sampling, junk between segments, a broken colour profile)."""


@dataclass(slots=True)
class JpegHeader:
    """What stands before the pixels."""

    exif: bytes = b""
    icc_parts: dict[int, bytes] = field(default_factory=dict)
    is_progressive: bool = False
    components: tuple[int, ...] = ()
    has_adobe: bool = False

    @property
    def icc(self) -> bytes:
        return b"".join(self.icc_parts[part] for part in sorted(self.icc_parts))

    @property
    def orientation(self) -> int:
        return orientation_of(self.exif)


def decode_jpeg(data: memoryview, pixels: memoryview, limits: GateLimits) -> DecodedImage:
    """Raises UncommonJpeg before anything is written, Undecodable for truncated or corrupt data."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise UncommonJpeg(str(error)) from error
    check_pixels(width, height, limits)
    header = read_header(data)
    if space in {"CMYK", "YCCK"}:
        _decode_cmyk(data, pixels, width, height, header)
    else:
        _decode_strictly(data, pixels[: width * height * 3], "BGR", header)
        if header.icc:
            colour.convert_in_place(pixels, width, height, header.icc)
    return DecodedImage("JPEG", width, height, header.orientation, 1)


def _decode_strictly(data: memoryview, buffer: memoryview | bytearray, space: str, header: JpegHeader) -> None:
    try:
        simplejpeg.decode_jpeg(data, space, buffer=buffer)
    except ValueError as error:
        # A progressive file whose refinements stop early is complete, only coarser than announced.
        if not (header.is_progressive and "premature end of data segment" in str(error)):
            raise Undecodable(str(error)) from error
        rest = essential(data, header.components)
        if rest is None:
            raise Undecodable(str(error)) from error
        try:
            simplejpeg.decode_jpeg(rest, space, buffer=buffer)
        except ValueError as early:
            raise Undecodable(str(early)) from early
        simplejpeg.decode_jpeg(data, space, buffer=buffer, strict=False)


def _decode_cmyk(data: memoryview, pixels: memoryview, width: int, height: int, header: JpegHeader) -> None:
    inks = bytearray(width * height * 4)
    _decode_strictly(data, inks, "CMYK", header)
    # Adobe writes inks inverted.
    layout = "CMYK;I" if header.has_adobe else "CMYK"
    picture = Image.frombuffer("CMYK", (width, height), inks, "raw", layout, 0, 1)
    colour.write_bgr(colour.to_srgb(picture, header.icc), pixels)


def read_header(data: memoryview) -> JpegHeader:
    """Segments up to the first scan. Reads nothing beyond the data, gives up quietly on what it cannot follow."""
    header = JpegHeader()
    position, size = 2, len(data)
    while position + 4 <= size and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        _note_segment(header, marker, bytes(data[position + 4 : position + 2 + length]))
        if marker in {_START_OF_SCAN, _END}:
            break
        position += 2 + length
    return header


def _note_segment(header: JpegHeader, marker: int, body: bytes) -> None:
    if marker in _FRAMES:
        header.is_progressive = marker in _PROGRESSIVE
        header.components = tuple(body[6 : 6 + 3 * body[5] : 3]) if len(body) > 5 else ()
    elif marker == _EXIF and body.startswith(b"Exif\x00") and not header.exif:
        header.exif = body
    elif marker == _ICC and body.startswith(b"ICC_PROFILE\x00") and len(body) > 14:
        header.icc_parts[body[12]] = body[14:]
    elif marker == 0xEE and body.startswith(b"Adobe"):
        header.has_adobe = True


def orientation_of(exif: bytes) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it makes no sense."""
    if not exif:
        return 1
    try:
        tags = Image.Exif()
        tags.load(exif)
        value = tags.get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block does not make the picture wrong, and fails in many ways
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
