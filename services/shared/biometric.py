"""Biometric types in the field's terms (ISO/IEC 2382-37)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels of the upright image, origin top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Components 0 to 100 after ISO/IEC 29794-5 and one unified score; higher is better."""

    unified: float
    components: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class FaceTemplate:
    """A unit vector (float32, `dimension` values), comparable only with templates of the same model."""

    vector: Vector
    model_id: str

    @property
    def dimension(self) -> int:
        return int(self.vector.shape[0])


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """A face found in an image. `landmarks`: right eye, left eye, nose tip, right and left mouth corner."""

    box: Box
    landmarks: tuple[tuple[float, float], ...]
    detection_score: float
    inter_eye_px: float
    quality: Quality
    template: FaceTemplate | None


@dataclass(frozen=True, slots=True)
class ModelProvenance:
    """Which networks, which preprocessing, which runtime made a template."""

    model_id: str
    detector: str
    detector_sha256: str
    recogniser: str
    recogniser_sha256: str
    licence: str
    dimension: int
    preprocessing_version: str
    runtime: str
    provider: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the image gate found: upright size in pixels, format, orientation applied, frames, decode scale."""

    format: str
    width: int
    height: int
    exif_orientation: int
    frame_count: int
    decode_scale: int


@dataclass(frozen=True, slots=True)
class ImageAnalysis:
    """Everything `embed` says about one image; faces in reading order, stage times in milliseconds."""

    image: ImageInfo
    faces: tuple[DetectedFace, ...]
    model: ModelProvenance
    timings_ms: Mapping[str, float]
