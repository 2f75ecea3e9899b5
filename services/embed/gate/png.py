"""PNG: whether the rows that its header promises are all there. Pillow leaves those that never came black."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL import Image

from services.embed.gate.limits import Undecodable

_SIGNATURE_BYTES, _HEADER_AT = 8, 16
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: where each pass begins and how far apart its pixels are, across and down.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WHOLE = ((0, 0, 1, 1),)
_PIECE_BYTES = 256 * 1024


def check_rows(picture: Image.Image, data: memoryview) -> None:
    """Raises Undecodable where pixels are missing. Only a picture whose last row is nothing but zeros is looked into,
    and one that came in passes: any other row of the last ones has come."""
    is_interlaced = bool(data[28])
    if is_interlaced or not any(picture.crop((0, picture.height - 1, *picture.size)).tobytes()):
        needed = _needed_bytes(data, is_interlaced=is_interlaced)
        if needed is not None and _inflated_bytes(data, needed) < needed:
            raise Undecodable("rows are missing")


def _needed_bytes(data: memoryview, *, is_interlaced: bool) -> int | None:
    """Of all rows with their filter bytes; None for a header that is none."""
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (_HEADER_AT, _HEADER_AT + 4))
    channels = _CHANNELS.get(data[25])
    if bytes(data[12:16]) != b"IHDR" or channels is None:
        return None
    total = 0
    for left, top, across, down in _PASSES if is_interlaced else _WHOLE:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * data[24] * channels // 8))
    return total


def _inflated_bytes(data: memoryview, enough: int) -> int:
    """How much the pixels' chunks inflate to, counted up to `enough`."""
    stream, count = zlib.decompressobj(), 0
    for body in _pixel_chunks(data):
        waiting = bytes(body)
        while waiting and count < enough and not stream.eof:
            count += len(stream.decompress(waiting, _PIECE_BYTES))
            waiting = stream.unconsumed_tail
    while count < enough and (more := stream.decompress(stream.unconsumed_tail, _PIECE_BYTES)):
        count += len(more)
    return count


def _pixel_chunks(data: memoryview) -> Iterator[memoryview]:
    position = _SIGNATURE_BYTES
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if bytes(data[position + 4 : position + 8]) == b"IDAT":
            yield data[position + 8 : position + 8 + length]
        position += 12 + length
