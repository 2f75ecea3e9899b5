"""The scans of a progressive JPEG: what of it must be whole for the picture to be whole."""

from __future__ import annotations

from collections.abc import Sequence

_COEFFICIENTS = 64
_MOST_SCANS = 2000  # of a sane file: ten
_SCAN = b"\xff\xda"
_END = b"\xff\xd9"
_STUFFED = frozenset({0x00, *range(0xD0, 0xD8), 0xFF})  # what may follow 0xFF within a scan


def essential(data: memoryview, components: Sequence[int]) -> bytes | None:
    """The file without the scans that only refine, and without those of colour beyond its mean.

    Where this decodes strictly, every coefficient of the light (the first component) and the mean of every colour came
    whole, and what stops early only makes the picture coarser. None where any of that was never sent.
    """
    content = bytes(data)
    at = content.find(_SCAN)
    kept, sent = [content[: max(at, 0)]], {component: set[int]() for component in components}
    for _ in range(_MOST_SCANS):
        if at < 0:
            break
        following = content.find(_SCAN, at + 2)
        piece = content[at : following if following >= 0 else len(content)]
        scan = _header(piece[4:])
        if scan is None or not sent.keys() >= set(scan.components):
            return None
        is_needed = not scan.is_refining and (scan.first == 0 or components[0] in scan.components)
        end = _scan_ends(piece)
        kept += [piece[:end] if is_needed else b"", _tables(piece, end)]
        for component in scan.components if is_needed else ():
            sent[component].update(range(scan.first, scan.last + 1))
        at = following
    has_light = bool(sent) and len(sent[components[0]]) == _COEFFICIENTS
    is_whole = has_light and all(0 in coefficients for coefficients in sent.values())
    return b"".join((*kept, _END)) if is_whole and at < 0 else None


class _Scan:
    """A scan's components, its first and last coefficient, and whether it refines what was sent."""

    def __init__(self, components: Sequence[int], first: int, last: int, approximation: int) -> None:
        self.components = components
        self.first = first
        self.last = last
        self.is_refining = approximation >> 4 > 0


def _header(body: bytes) -> _Scan | None:
    """After the marker and the length; None where it makes no sense."""
    count = body[0] if body else 0
    if not 1 <= count <= 4 or len(body) < 4 + 2 * count:
        return None
    first, last, approximation = body[1 + 2 * count : 4 + 2 * count]
    if not first <= last < _COEFFICIENTS:
        return None
    return _Scan([body[1 + 2 * place] for place in range(count)], first, last, approximation)


def _tables(piece: bytes, start: int) -> bytes:
    """The segments that follow a scan's data, as far as they make sense."""
    at = start
    while piece[at : at + 1] == b"\xff" and len(piece) >= at + 4 and piece[at + 1] != _END[1]:
        length = int.from_bytes(piece[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(piece):
            break
        at += 2 + length
    return piece[start:at]


def _scan_ends(piece: bytes) -> int:
    """Where tables for the next scan, or the end of the file, follow a scan's data."""
    at = piece.find(b"\xff", 2)
    while at >= 0 and at + 1 < len(piece):
        if piece[at + 1] not in _STUFFED:
            return at
        at = piece.find(b"\xff", at + 1)
    return len(piece)
