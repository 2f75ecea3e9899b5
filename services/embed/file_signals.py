"""What a file says of itself that a supervisor should know: made or edited by software.

Metadata is never trusted to clear a picture, and never shown. Only whether one of a closed list of marks stands in the
file is told; anybody can take a mark away, few bother to.
"""

from __future__ import annotations

import re

# IPTC digital source types (also in C2PA manifests and XMP) and what generators write into PNG text.
_GENERATED = re.compile(
    rb"trainedAlgorithmicMedia|compositeWithTrainedAlgorithmicMedia|stable-diffusion|Stable Diffusion|Midjourney"
    rb"|DALL[-\xb7]E|ComfyUI|\x00parameters\x00|tEXtparameters\x00|iTXtparameters\x00|NovelAI|Adobe Firefly"
)
# Applications for faces, and the digital source types of composites and drawings. General editors say nothing: 234 of
# the 1,263 development stills, official portraits most of them, went through Adobe Photoshop.
_EDITED = re.compile(
    rb"FaceApp|Facetune|Meitu|BeautyPlus|BeautyCam|Remini|YouCam|AirBrush|digitalsourcetype/compositeCapture"
    rb"|digitalsourcetype/compositeSynthetic|digitalsourcetype/digitalArt|digitalsourcetype/virtualRecording"
)
# Marks stand before the pixels or after them, not in between.
_JPEG, _SCAN, _END = b"\xff\xd8\xff", b"\xda", b"\xff\xd9"
_HEAD_BYTES, _TAIL_BYTES = 512 * 1024, 128 * 1024


def file_signals(file: bytes) -> tuple[str, ...]:
    """`file_says_generated`, `file_says_edited`, or neither."""
    parts = _around_jpeg_scans(file) or _ends(file)
    names = (("file_says_generated", _GENERATED), ("file_says_edited", _EDITED))
    return tuple(name for name, marks in names if any(marks.search(part) for part in parts))


def _ends(file: bytes) -> tuple[bytes, ...]:
    return (file,) if len(file) <= _HEAD_BYTES + _TAIL_BYTES else (file[:_HEAD_BYTES], file[-_TAIL_BYTES:])


def _around_jpeg_scans(file: bytes) -> tuple[bytes, bytes] | None:
    """What stands before the first scan of a JPEG and after its end, which is quick to look through; None where the
    segments cannot be followed. A thumbnail's own scan lies inside a segment, and is stepped over with it."""
    if not file.startswith(_JPEG):
        return None
    position = len(_JPEG) - 1
    while file[position : position + 1] == b"\xff" and file[position + 1 : position + 2] != _SCAN:
        length = int.from_bytes(file[position + 2 : position + 4], "big")
        if length < 2:
            return None
        position += 2 + length
    # In a scan 0xff is followed by what is no marker; a table between scans may hold the end by chance, and then more
    # is looked through.
    end = file.find(_END, position)
    if file[position : position + 2] != b"\xff" + _SCAN or end < 0:
        return None
    return file[:position][:_HEAD_BYTES], file[end:][-_TAIL_BYTES:]
