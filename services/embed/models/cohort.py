"""The mean template of a cohort for each recogniser: `cohort_means.json` beside this file.

It is the mean over more than a thousand people and describes none of them. It belongs to one network and one
preprocessing: made by `python -m tests.accuracy cohort-mean`, and part of the template's version.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources

import numpy as np
import numpy.typing as npt

from services.embed.models.manifest import ModelEntry


def cohort_mean(recogniser: ModelEntry) -> npt.NDArray[np.float32]:
    """The mean template of a recogniser; zeros where none was measured."""
    values = _document().get(recogniser.stamp, {}).get("mean")
    return np.zeros(recogniser.dimension, np.float32) if values is None else np.array(values, np.float32)


def cohort_stamp(recogniser: ModelEntry) -> str:
    """Names the mean in the template's version; empty where there is none."""
    mean = cohort_mean(recogniser)
    return hashlib.sha256(mean.astype("<f4").tobytes()).hexdigest()[:6] if mean.any() else ""


def _document() -> dict[str, dict[str, list[float]]]:
    document: dict[str, dict[str, list[float]]] = json.loads(
        resources.files(__package__).joinpath("cohort_means.json").read_text("utf-8")
    )
    return document
