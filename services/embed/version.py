"""The name under which templates are comparable: networks, their files and everything done to the pixels before."""

from __future__ import annotations

from services.embed.models.manifest import ModelEntry
from services.embed.settings import DetectionSettings

# Raised whenever the same picture would give another template: decoding, detection scales, alignment, normalisation.
PREPROCESSING = 1


def preprocessing_version(detection: DetectionSettings) -> str:
    """Settings that change which faces are found or where their landmarks lie are part of the version."""
    standard = DetectionSettings()
    if detection == standard:
        return f"p{PREPROCESSING}"
    return f"p{PREPROCESSING}-s{detection.score_threshold:g}-n{detection.nms_threshold:g}"


def model_id_of(detector: ModelEntry, recogniser: ModelEntry, detection: DetectionSettings) -> str:
    return f"{recogniser.stamp}+{detector.stamp}+{preprocessing_version(detection)}"
