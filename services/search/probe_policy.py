"""What speaks against a probe: flags that a supervisor has to look at before anything is made of its candidates.

Composites, drawings, heavy retouching, generated faces, and photographs of screens and prints are told by signals that
are listed with their error rates in docs/probes.md. A signal proves nothing; its absence clears nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.shared.biometric import DetectedFace, ImageAnalysis

_WORDS: Mapping[str, str] = {
    "periodic_pattern": "A regular pattern as of a screen or a print: a photograph of a picture.",
    "missing_noise": "No camera noise in smooth parts: drawn, generated or heavily retouched.",
    "flat_colours": "Patches of exactly one colour: drawn, or reduced to few colours.",
    "line_art": "Thin dark lines on white without colour: a drawing or a composite.",
    "file_says_generated": "The file says that software generated it.",
    "file_says_edited": "The file says that it went through software that edits pictures.",
}


@dataclass(frozen=True, slots=True)
class ProbeFlag:
    """`value` and `threshold` are None for what the file says of itself."""

    code: str
    detail: str
    value: float | None = None
    threshold: float | None = None


def flags_of(analysis: ImageAnalysis, face: DetectedFace) -> tuple[ProbeFlag, ...]:
    """The flags of one face of a probe, in a fixed order. Any flag needs a supervisor."""
    measured = [
        ProbeFlag(signal.name, _WORDS.get(signal.name, "An unusual picture."), signal.value, signal.threshold)
        for signal in face.signals
        if signal.is_raised
    ]
    said = [ProbeFlag(name, _WORDS[name]) for name in analysis.image.file_signals if name in _WORDS]
    return (*measured, *said)
