"""What speaks against a probe: flags that a supervisor has to look at before anything is made of its candidates.

Composites, drawings, heavy retouching, generated faces, and photographs of screens and prints are told by signals that
are listed with their error rates in docs/probes.md. A signal proves nothing; its absence clears nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.search.identification.requests import ImageNature
from services.shared.biometric import DetectedFace, ImageAnalysis

_WORDS: Mapping[str, str] = {
    "periodic_pattern": "A regular pattern as of a screen or a print: a photograph of a picture.",
    "missing_noise": "No camera noise in smooth parts: drawn, generated or heavily retouched.",
    "flat_colours": "Patches of exactly one colour: drawn, or reduced to few colours.",
    "line_art": "Thin dark lines on white, or black and white alone: a drawing or a composite.",
    "file_says_generated": "The file says that software generated it.",
    "file_says_edited": "The file says that it went through software that edits pictures.",
}


# What was measured of each (docs/probes.md): on 632 real pictures, and on pictures made to be found.
_MEASURED: Mapping[str, str] = {
    "periodic_pattern": "Raised on 2 of 632 real pictures, on all of 183 simulated screens and prints.",
    "missing_noise": "Raised on 4 of 632 real pictures, 41 of 41 retouched, 39 of 41 comics; generated: not measured.",
    "flat_colours": "Raised on 3 of 632 real pictures, on 41 of 41 reduced to twelve colours, on 2 of 41 paintings.",
    "line_art": "Raised on none of 632 real pictures, on 38 of 40 simulated charcoal drawings, on 2 of 26 in pencil.",
    "file_says_generated": "Raised on none of 1,275 real pictures; generated: not measured, and anybody can remove it.",
    "file_says_edited": "Raised on none of 1,275 real pictures; edited: not measured, and anybody can remove it.",
}


# What was declared of the picture, where that is not a plain photograph or frame. The packaged policy permits no
# drawings, composites, look-alikes and generated images; where a force's own does they are flagged all the same.
_DECLARED: Mapping[ImageNature, str] = {
    ImageNature.RETOUCHED: "The request says that the picture was retouched.",
    ImageNature.REPHOTOGRAPHED: "The request says that it is a picture of a screen or of a print.",
    ImageNature.DRAWING: "The request says that it is a drawing.",
    ImageNature.COMPOSITE: "The request says that it is a composite of parts.",
    ImageNature.LOOK_ALIKE: "The request says that it shows somebody who looks alike, not the person.",
    ImageNature.GENERATED: "The request says that a trained model made or changed it.",
}


@dataclass(frozen=True, slots=True)
class ProbeFlag:
    """`value` and `threshold` are None for what the file, or the request, says of the picture."""

    code: str
    detail: str
    value: float | None = None
    threshold: float | None = None


def flags_of(
    analysis: ImageAnalysis, face: DetectedFace, nature: ImageNature = ImageNature.UNSTATED
) -> tuple[ProbeFlag, ...]:
    """The flags of one face of a probe that was declared to be of this nature, in a fixed order. Any flag needs a
    supervisor; what was declared clears nothing that was measured."""
    declared = [ProbeFlag(f"declared_{nature.value}", _DECLARED[nature])] if nature in _DECLARED else []
    measured = [
        ProbeFlag(signal.name, _words(signal.name), signal.value, signal.threshold)
        for signal in face.signals
        if signal.is_raised
    ]
    said = [ProbeFlag(name, _words(name)) for name in analysis.image.file_signals if name in _WORDS]
    return (*declared, *measured, *said)


def _words(name: str) -> str:
    """What it is, and how often it errs as far as that was measured."""
    known = _WORDS.get(name, "An unusual picture.")
    return f"{known} {_MEASURED.get(name, 'How often it errs is not measured.')}"
