"""Measures the mean template of a cohort: what services/embed/models/cohort_means.json holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.embed.adapters.onnxruntime_session import OnnxruntimeSession
from services.embed.faces.analyser import FaceAnalyser, PictureJob
from services.embed.faces.detector import YuNet
from services.embed.faces.finder import FaceFinder
from services.embed.faces.landmarks import LandmarkRefiner
from services.embed.faces.picture import Picture
from services.embed.faces.recogniser import Recogniser
from services.embed.faces.templates import Templater
from services.embed.models.manifest import load_manifest
from services.embed.models.store import ModelStore
from services.embed.ports import Selection
from services.embed.settings import DetectionSettings, ModelSettings
from services.local.evaluation.labelled_set import LabelledStill
from services.shared.packages import cache_folder
from tests.accuracy.naive import decode

CPU = ("CPUExecutionProvider",)


def write_cohort_mean(stills: Sequence[LabelledStill], path: Path) -> None:
    """Put the mean template of these stills, a cohort of many people, into the file for the default recogniser."""
    settings, manifest, store = ModelSettings(), load_manifest(), ModelStore(cache_folder())
    recogniser = store.open(manifest.get(settings.recogniser, "recogniser"))
    detector = store.open(manifest.get(settings.detector, "detector"))
    analyser = _analyser(detector.read(), recogniser.read(), recogniser.entry.kind, recogniser.entry.dimension)
    vectors = [vector for still in stills if (vector := _vector(analyser, still.path)) is not None]
    document = json.loads(path.read_text("utf-8"))
    people = len({still.identity for still in stills})
    document[recogniser.entry.stamp] = {
        "pictures": len(vectors),
        "people": people,
        "made_from": hashlib.sha256("".join(sorted(still.name for still in stills)).encode()).hexdigest(),
        "mean": [round(float(value), 6) for value in np.mean(vectors, axis=0)],
    }
    path.write_text(json.dumps(document, indent=None, separators=(",", ":")) + "\n", "utf-8")


def _analyser(detector: bytes, recogniser: bytes, kind: str, dimension: int) -> FaceAnalyser:
    detection = DetectionSettings()
    network = YuNet(
        OnnxruntimeSession(detector, providers=CPU),
        score_threshold=detection.score_threshold,
        nms_threshold=detection.nms_threshold,
    )
    return FaceAnalyser(
        FaceFinder(network, nms_threshold=detection.nms_threshold, max_faces=detection.max_faces),
        LandmarkRefiner(network),
        Templater(
            Recogniser(OnnxruntimeSession(recogniser, providers=CPU), kind=kind, dimension=dimension),
            np.zeros(dimension, np.float32),
        ),
        "cohort",
        "always",
    )


def _vector(analyser: FaceAnalyser, path: Path) -> np.ndarray | None:
    (result,) = analyser.analyse([PictureJob(Picture(decode(path.read_bytes()), 1), Selection.LARGEST)])
    return next((face.template.vector for face in result.faces if face.template is not None), None)
