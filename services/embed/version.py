"""The name under which templates are comparable: networks, their files and everything done to the pixels before."""

from __future__ import annotations

from services.embed.models.cohort import cohort_stamp
from services.embed.models.manifest import ModelEntry
from services.embed.settings import DetectionSettings, Mirror

# Raised whenever the same picture would give another template: decoding, detection scales, alignment, normalisation.
PREPROCESSING = 3


def preprocessing_version(recogniser: ModelEntry, detection: DetectionSettings, mirror: Mirror) -> str:
    """Settings that change which faces are found, where their landmarks lie or what is done with a vector are part of
    the version, and so is the cohort's mean."""
    parts = [f"p{PREPROCESSING}"]
    if mirror != "reference":
        parts.append(f"mirror_{mirror}")
    if detection != DetectionSettings():
        parts.append(f"s{detection.score_threshold:g}-n{detection.nms_threshold:g}")
    if stamp := cohort_stamp(recogniser):
        parts.append(f"c{stamp}")
    return "-".join(parts)


def model_id_of(detector: ModelEntry, recogniser: ModelEntry, detection: DetectionSettings, mirror: Mirror) -> str:
    return f"{recogniser.stamp}+{detector.stamp}+{preprocessing_version(recogniser, detection, mirror)}"
