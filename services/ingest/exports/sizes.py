"""Width and height of a JPEG or PNG from its header alone: nothing of the picture is decoded here."""

from __future__ import annotations

_PNG = b"\x89PNG\r\n\x1a\n"
# Start of frame, but for the markers between them that are something else: DHT, JPG, DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def picture_size(content: bytes) -> tuple[int, int] | None:
    """None for any other format, and for a header that is cut off."""
    if content.startswith(_PNG) and content[12:16] == b"IHDR" and len(content) >= 24:
        return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    if content.startswith(b"\xff\xd8"):
        return _jpeg_size(content)
    return None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(content):
        if content[place] != 0xFF:
            return None
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _STANDALONE:
            place += 2
        elif marker in _FRAMES:
            height, width = (int.from_bytes(content[place + at : place + at + 2], "big") for at in (5, 7))
            return (width, height) if width and height else None
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None
