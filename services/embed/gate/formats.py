"""The allow-list of still image formats, by their first bytes: a file's name and its announced type say nothing."""

from __future__ import annotations

# Brands of the ISO base media file format (ISO/IEC 14496-12) that hold stills.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"})
ALLOWED = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF")

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)


def recognise_format(head: bytes) -> str | None:
    """The decoder's name of the format that these first bytes (64 are enough) announce; None when not allowed."""
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _iso_media_format(head)
    return None


def _iso_media_format(head: bytes) -> str | None:
    """AVIF or HEIC by the major brand; where that is generic, by the compatible brands."""
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, min(len(head), 64), 4))]
    if brands[0] in _AVIF_BRANDS:
        return "AVIF"
    if brands[0] in _HEIC_BRANDS:
        return "AVIF" if _AVIF_BRANDS & set(brands[1:]) else "HEIF"
    return None


def count_gif_frames(data: memoryview, at_most: int) -> int:
    """Image blocks of a GIF, by walking its blocks; nothing is decoded. At least 1; a broken block ends the count."""
    position = 13 + _palette_bytes(data[10])
    frames = 0
    while frames < at_most and position < len(data):
        kind = data[position]
        if kind == 0x21:  # an extension: its label, then sub-blocks
            position = _after_sub_blocks(data, position + 2)
        elif kind == 0x2C and position + 10 < len(data):  # an image: descriptor, palette, code size, sub-blocks
            frames += 1
            position = _after_sub_blocks(data, position + 11 + _palette_bytes(data[position + 9]))
        else:
            break
    return max(1, frames)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: memoryview, position: int) -> int:
    while position < len(data) and data[position]:
        position += data[position] + 1
    return position + 1
