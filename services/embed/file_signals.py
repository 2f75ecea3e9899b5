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
_HEAD_BYTES, _TAIL_BYTES = 512 * 1024, 128 * 1024


def file_signals(file: bytes) -> tuple[str, ...]:
    """`file_says_generated`, `file_says_edited`, or neither."""
    parts = (file,) if len(file) <= _HEAD_BYTES + _TAIL_BYTES else (file[:_HEAD_BYTES], file[-_TAIL_BYTES:])
    names = (("file_says_generated", _GENERATED), ("file_says_edited", _EDITED))
    return tuple(name for name, marks in names if any(marks.search(part) for part in parts))
