"""The naive pipeline that Likeness is measured against: OpenCV's own YuNet and SFace, used as its samples use them.

Detection on the picture reduced to 640 pixels, the most prominent face, `alignCrop` on the picture as it is, `feature`,
cosine. That is a kind reading of naive: the first face that OpenCV lists is often the bystander (rank 1 .947). OpenCV 5
does not load the recogniser's file as published (dangling inputs), so it gets the prepared file, whose answers are the
same: cosine 1.000000, held by tests/unit/embed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from services.embed.models.manifest import load_manifest
from services.embed.models.store import ModelStore
from services.embed.settings import ModelSettings
from services.local.evaluation.labelled_set import PROBE_SPLIT, LabelledStill
from services.shared.packages import cache_folder

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

DETECTION_THRESHOLD, OVERLAP, TOP = 0.6, 0.3, 5000
LONG_SIDE = 640
Degrade = Callable[[bytes, float], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """One row a still: unit vectors, whether a face was found, and the distance between its eyes in pixels."""

    vectors: Vectors
    is_found: npt.NDArray[np.bool_]
    inter_eye_px: npt.NDArray[np.float32]


class OpenCvPipeline:
    """YuNet and SFace in OpenCV's runtime. Raises ConfigurationError when the models have not been fetched."""

    def __init__(self) -> None:
        settings, manifest, store = ModelSettings(), load_manifest(), ModelStore(cache_folder())
        self.models = tuple(
            store.open(manifest.get(name, role))
            for name, role in ((settings.detector, "detector"), (settings.recogniser, "recogniser"))
        )
        detector, recogniser = (str(model.path) for model in self.models)
        published = self.models[0].path.parents[1] / "sources" / self.models[0].entry.file
        self._detector: Any = cv2.FaceDetectorYN.create(
            str(published if published.is_file() else detector), "", (320, 320), DETECTION_THRESHOLD, OVERLAP, TOP
        )
        self._recogniser: Any = cv2.FaceRecognizerSF.create(recogniser, "")

    def detect(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Rows of box, five landmarks and score."""
        factor = LONG_SIDE / max(pixels.shape[:2])
        if factor < 1:
            reduced = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            rows = self.detect(np.asarray(reduced, np.uint8))
            rows[:, :14] *= pixels.shape[1] / reduced.shape[1]
            return rows
        self._detector.setInputSize(pixels.shape[1::-1])
        _, rows = self._detector.detect(pixels)
        return np.empty((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)

    def align(self, pixels: Pixels, row: npt.NDArray[np.float32]) -> Pixels:
        return np.asarray(self._recogniser.alignCrop(pixels, row), np.uint8)

    def vector(self, aligned: Pixels) -> Vectors:
        raw = np.asarray(self._recogniser.feature(aligned), np.float32)[0]
        unit: Vectors = raw / np.linalg.norm(raw)
        return unit


def decode(file: bytes) -> Pixels:
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError("OpenCV does not decode this file")
    return np.asarray(pixels, np.uint8)


def most_prominent(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The largest face, weighed by the detector's score."""
    return np.asarray(rows[np.argmax(rows[:, 2] * rows[:, 3] * rows[:, 14])], np.float32)


def eyes_px(row: npt.NDArray[np.float32]) -> float:
    return float(np.hypot(row[6] - row[4], row[7] - row[5]))


def naive_templates(pipeline: OpenCvPipeline, stills: Sequence[LabelledStill]) -> Templates:
    """Templates of stills as they are, kept in the cache by models and pictures."""
    return _cached("naive 640", pipeline, stills, lambda: _compute(pipeline, stills, None, None))


def naive_degraded(
    pipeline: OpenCvPipeline, stills: Sequence[LabelledStill], clean: Templates, name: str, degrade: Degrade
) -> Templates:
    """Templates of degraded probes, none of other stills; `clean` says how far apart the eyes were."""
    return _cached(f"naive 640 {name}", pipeline, stills, lambda: _compute(pipeline, stills, clean, degrade))


def _compute(
    pipeline: OpenCvPipeline, stills: Sequence[LabelledStill], clean: Templates | None, degrade: Degrade | None
) -> Templates:
    vectors = np.zeros((len(stills), 128), np.float32)
    found, eyes = np.zeros(len(stills), np.bool_), np.zeros(len(stills), np.float32)
    for place, still in enumerate(stills):
        if degrade is not None and still.split != PROBE_SPLIT:
            continue
        file = still.path.read_bytes()
        if degrade is not None and clean is not None and clean.is_found[place]:
            file = degrade(file, float(clean.inter_eye_px[place]))
        pixels = decode(file)
        rows = pipeline.detect(pixels)
        if len(rows):
            row = most_prominent(rows)
            vectors[place] = pipeline.vector(pipeline.align(pixels, row))
            found[place], eyes[place] = True, eyes_px(row)
    return Templates(vectors, found, eyes)


def _cached(
    name: str, pipeline: OpenCvPipeline, stills: Sequence[LabelledStill], compute: Callable[[], Templates]
) -> Templates:
    path = cache_folder() / "accuracy" / f"{cache_key(name, pipeline, stills)}.npz"
    if path.is_file():
        with np.load(path) as held:
            return Templates(held["vectors"], held["is_found"], held["inter_eye_px"])
    made = compute()
    save(path, vectors=made.vectors, is_found=made.is_found, inter_eye_px=made.inter_eye_px)
    return made


def cache_key(name: str, pipeline: OpenCvPipeline, stills: Sequence[LabelledStill]) -> str:
    """Other networks, another OpenCV or other pictures have other keys."""
    facts = [name, cv2.__version__, *(model.sha256 for model in pipeline.models)]
    facts += [f"{still.name} {still.path.stat().st_size}" for still in stills]
    return f"{name.replace(' ', '_')}-{hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:20]}"


def save(path: Path, **arrays: Any) -> None:
    """Write arrays, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, **arrays)
    part.replace(path)
