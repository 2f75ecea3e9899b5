"""Files whose end was never written: room was made for the whole of it, and a copy or a recovery stopped half way.

WebP, AVIF and HEIC have no checksum, and their decoders show such a picture as if it were one: grey or noise from some
row on. JPEG, PNG, GIF and packed TIFF are refused by their own decoders.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.embed.gate.limits import Undecodable

_BLOCK_BYTES = 4096  # of a disk; coded pixels are never so long without a bit
_METADATA = (b"EXIF", b"XMP ")


def check_tail(name: str, data: memoryview) -> None:
    """Raises Undecodable where the place for coded pixels ends in a block of zeros. Other formats pass."""
    ends = {"WEBP": _riff_end, "AVIF": _media_ends, "HEIF": _media_ends}.get(name)
    for end in ends(data) if ends is not None else ():
        if end >= _BLOCK_BYTES and not any(data[end - _BLOCK_BYTES : end]):
            raise Undecodable("the end of the file was never written")


def _riff_end(data: memoryview) -> Iterator[int]:
    """Of the file, unless metadata stand there: those may be padded."""
    at, last, end = 12, b"", min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end and any(data[at : at + 4]):
        last = bytes(data[at : at + 4])
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    if last not in _METADATA:
        yield end


def _media_ends(data: memoryview) -> Iterator[int]:
    """Of each box of media data (ISO/IEC 14496-12) that has more than a block."""
    at = 0
    while at + 8 <= len(data):
        size, kind, header = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8]), 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        end = len(data) if size == 0 else min(len(data), at + size)
        if end < at + header:
            return
        if kind == b"mdat" and end - at - header > _BLOCK_BYTES:
            yield end
        at = end
