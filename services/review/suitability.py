"""What a probe's numbers mean to an operator: a grade, and words."""

from __future__ import annotations

from services.review.model import ProbeFace, Suitability

# Between the eyes, in pixels. ISO/IEC 19794-5 asks 60 for a usable token image and 90 for good ones; below 24 the
# development set loses one subject in six at a FPIR of 1 %.
GOOD_EYES_PX, POOR_EYES_PX, UNUSABLE_EYES_PX = 60.0, 24.0, 12.0
GOOD_QUALITY, POOR_QUALITY = 50.0, 20.0

BANDS = ("high", "medium", "low")


def quality_band(face: ProbeFace) -> str:
    """high, medium or low: what results and figures are told apart by."""
    if face.inter_eye_px >= GOOD_EYES_PX and face.unified_quality >= GOOD_QUALITY:
        return "high"
    if face.inter_eye_px >= POOR_EYES_PX and face.unified_quality >= POOR_QUALITY:
        return "medium"
    return "low"


def measured(face: ProbeFace) -> Suitability:
    """What the numbers say; an operator decides."""
    if face.inter_eye_px < UNUSABLE_EYES_PX:
        return Suitability.UNSUITABLE
    return Suitability.SUITABLE if quality_band(face) == "high" else Suitability.CAUTION


def in_words(face: ProbeFace) -> tuple[str, ...]:
    """The quality as an operator reads it, worst first."""
    words = [_eyes(face.inter_eye_px)]
    poor = sorted((value, name) for name, value in face.quality.items() if value < GOOD_QUALITY)
    words += [f"{name.replace('_', ' ')} {value:.0f} of 100: {_degree(value)}" for value, name in poor]
    words.append(f"unified quality {face.unified_quality:.0f} of 100")
    return tuple(words)


def _eyes(distance_px: float) -> str:
    told = f"eyes {distance_px:.0f} px apart"
    if distance_px >= GOOD_EYES_PX:
        return f"{told}: enough detail"
    if distance_px >= POOR_EYES_PX:
        return f"{told}: less detail than a good probe has"
    if distance_px >= UNUSABLE_EYES_PX:
        return f"{told}: expect to miss"
    return f"{told}: too small to search with any use"


def _degree(value: float) -> str:
    return "poor" if value < POOR_QUALITY else "below good"
