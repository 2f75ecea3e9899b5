"""The parts of a picture's file that hold no pixels, as bytes: where marks can stand, and quick to look through.

Only lengths are followed, nothing is decoded, and whatever cannot be followed is given whole as far as the budget goes,
so that a broken structure hides nothing that a plain search of the ends would have found.
"""

from __future__ import annotations

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SCAN, _END = b"\xda", b"\xff\xd9"
_PIXELS_OF_PNG = frozenset({b"IDAT", b"fdAT"})
_PIXELS_OF_WEBP = frozenset({b"VP8 ", b"VP8L", b"ALPH", b"ANMF"})
_HEAD_BYTES, _TAIL_BYTES = 512 * 1024, 128 * 1024
# Of all parts together: content credentials come with thumbnails and seldom have a megabyte.
_BUDGET_BYTES = 2 * 1024 * 1024
# Honest files of 32 MiB have some thousands; each takes a microsecond of the whole service's time.
_MOST_PARTS = 65_536
# APP11 (ISO/IEC 19566-5): what goes before the piece of a box in a segment, and what each further piece repeats.
_JUMBF, _JUMBF_HEADER, _BOX_HEADER = b"JP", 8, 8
# APP1: GUID, length and offset stand before each piece of extended XMP.
_EXTENDED_XMP, _EXTENDED_HEADER = b"http://ns.adobe.com/xmp/extension/\x00", 40


def parts_without_pixels(file: bytes) -> list[bytes]:
    """What is to be looked through; never empty, at most _BUDGET_BYTES and what the ends have."""
    found = None
    if file.startswith(_JPEG):
        found = _of_jpeg(file)
    elif file.startswith(_PNG):
        found = _of_chunks(file, len(_PNG), is_big=True, skipped=_PIXELS_OF_PNG)
    elif file[:4] == b"RIFF" and file[8:12] == b"WEBP":
        found = _of_chunks(file, 12, is_big=False, skipped=_PIXELS_OF_WEBP)
    return found or _ends(file)


def _ends(file: bytes) -> list[bytes]:
    return [file] if len(file) <= _HEAD_BYTES + _TAIL_BYTES else [file[:_HEAD_BYTES], file[-_TAIL_BYTES:]]


def _of_jpeg(file: bytes) -> list[bytes] | None:
    """What stands before the first scan of a JPEG and after its end; None where the segments cannot be followed. A
    thumbnail's own scan lies inside a segment, and is stepped over with it. Pieces that one text or manifest was cut
    into are put together."""
    position = len(_JPEG) - 1
    jumbf: list[bytes] = []
    extended: list[bytes] = []
    for _ in range(_MOST_PARTS):
        if file[position : position + 1] != b"\xff" or file[position + 1 : position + 2] == _SCAN:
            break
        length = int.from_bytes(file[position + 2 : position + 4], "big")
        if length < 2:
            return None
        _note_pieces(file[position + 1 : position + 2], file[position + 4 : position + 2 + length], jumbf, extended)
        position += 2 + length
    # In a scan 0xff is followed by what is no marker; a table between scans may hold the end by chance, and then more
    # is looked through.
    end = file.find(_END, position)
    if file[position : position + 2] != b"\xff" + _SCAN or end < 0:
        return None
    return [file[:position][:_BUDGET_BYTES], file[end:][-_TAIL_BYTES:], b"".join(jumbf), b"".join(extended)]


def _note_pieces(marker: bytes, body: bytes, jumbf: list[bytes], extended: list[bytes]) -> None:
    if marker == b"\xeb" and body.startswith(_JUMBF):
        jumbf.append(body[_JUMBF_HEADER + (_BOX_HEADER if jumbf else 0) :])
    elif marker == b"\xe1" and body.startswith(_EXTENDED_XMP):
        extended.append(body[len(_EXTENDED_XMP) + _EXTENDED_HEADER :])


def _of_chunks(file: bytes, position: int, *, is_big: bool, skipped: frozenset[bytes]) -> list[bytes] | None:
    """Chunks without pixels, each with its name, of PNG (length, name, content, sum) or RIFF (name, length, content,
    made even); None where they do not lead to the end of the file within the budget."""
    found: list[bytes] = []
    left = _BUDGET_BYTES
    for _ in range(_MOST_PARTS):
        head = file[position : position + 8]
        if len(head) < 8:
            return [b"".join(found)] if position <= len(file) + 1 and left > 0 else None
        name, size = (head[4:], head[:4]) if is_big else (head[:4], head[4:])
        length = int.from_bytes(size, "big" if is_big else "little")
        if name not in skipped:
            found.append(name + file[position + 8 : position + 8 + min(length, max(0, left))])
            left -= len(found[-1])
        position += 8 + length + (4 if is_big else length % 2)
    return None
