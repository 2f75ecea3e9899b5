"""Which face of an image becomes the reference, and whether it is good enough."""

from __future__ import annotations

import numpy as np

from services.ingest.enrolling.enrolment import Decision, Verdict
from services.ingest.settings import QualityPolicy
from services.shared.biometric import Box, DetectedFace, ImageAnalysis, ImageInfo
from services.shared.capture_advice import capture_advice

_UNIT_TOLERANCE = 1e-3  # float32 rounding of a unit vector is a thousand times smaller


def decide(analysis: ImageAnalysis, policy: QualityPolicy, decided_at_ms: int) -> Decision:
    """The verdict on an analysed image: refuse without a face, with rivals for the subject's face or with too little
    quality; quarantine where the template itself is unusable; enrol the subject's face otherwise.

    The subject's face is the one that embed gave a template: it knows best which is the most prominent.
    """
    if not analysis.faces:
        return _refuse("no_face_found", "No face was found in the image.", decided_at_ms)
    face = next((each for each in analysis.faces if each.template is not None), analysis.faces[0])
    rivals = [other for other in analysis.faces if other is not face and _is_rival(other, face, analysis.image, policy)]
    if rivals:
        detail = f"{len(rivals) + 1} faces of comparable size; crop the image to the subject."
        return _refuse("several_faces", detail, decided_at_ms)
    if face.template is None or not _is_usable(face, analysis.model.dimension):
        detail = "The template that came back is not a unit vector of the announced dimension."
        return Decision(Verdict.QUARANTINE, decided_at_ms, reason="unusable_template", detail=detail)
    shortfall = _shortfall(face, policy)
    return Decision(
        Verdict.REFUSE if shortfall else Verdict.ENROL,
        decided_at_ms,
        reason="quality_too_low" if shortfall else "",
        detail=shortfall,
        template=b"" if shortfall else face.template.vector.astype("<f4").tobytes(),
        model=analysis.model,
        unified_quality=face.quality.unified,
        quality_components=face.quality.components,
        inter_eye_px=face.inter_eye_px,
    )


def _is_rival(other: DetectedFace, face: DetectedFace, image: ImageInfo, policy: QualityPolicy) -> bool:
    if other.detection_score < policy.rival_detection_score:
        return False
    if other.inter_eye_px < policy.rival_size_ratio * face.inter_eye_px:
        return False
    share = policy.middle_share
    return _is_in_the_middle(other.box, image, share) or not _is_in_the_middle(face.box, image, share)


def _is_in_the_middle(box: Box, image: ImageInfo, share: float) -> bool:
    across = abs(box.x + box.width / 2 - image.width / 2) <= share / 2 * image.width
    down = abs(box.y + box.height / 2 - image.height / 2) <= share / 2 * image.height
    return across and down


def _is_usable(face: DetectedFace, dimension: int) -> bool:
    if face.template is None or face.template.dimension != dimension:
        return False
    return bool(abs(float(np.linalg.norm(face.template.vector)) - 1.0) <= _UNIT_TOLERANCE)  # false for NaN too


def _shortfall(face: DetectedFace, policy: QualityPolicy) -> str:
    """What is not good enough, and for custody staff what would be; empty where all is."""
    if face.inter_eye_px < policy.min_inter_eye_px:
        wrong = f"{face.inter_eye_px:.0f} px between the eyes, {policy.min_inter_eye_px:.0f} are needed."
    elif face.quality.unified < policy.min_unified_quality:
        wrong = f"Quality {face.quality.unified:.0f} of 100, {policy.min_unified_quality:.0f} is needed."
    else:
        return ""
    return " ".join([wrong, *capture_advice(face.quality.components)])


def _refuse(reason: str, detail: str, decided_at_ms: int) -> Decision:
    return Decision(Verdict.REFUSE, decided_at_ms, reason=reason, detail=detail)
