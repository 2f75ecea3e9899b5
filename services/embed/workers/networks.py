"""The networks that a worker's order names, opened on what the machine has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from services.embed.adapters.onnxruntime_session import CPU, OnnxruntimeSession, runtime_name
from services.embed.adapters.padded_batches import PaddedBatches
from services.embed.adapters.session_per_shape import SessionPerShape
from services.embed.faces.analyser import FaceAnalyser
from services.embed.faces.detector import YuNet
from services.embed.faces.finder import FIRST_LONG_SIDE, FaceFinder
from services.embed.faces.landmarks import LOOK_PX, LandmarkRefiner
from services.embed.faces.recogniser import INPUT_SCALING, SIDE, Recogniser
from services.embed.faces.templates import Templater
from services.embed.models.cohort import cohort_mean
from services.embed.models.manifest import ModelEntry
from services.embed.models.store import PreparedModel
from services.embed.ports import ModelSession
from services.embed.settings import DetectionSettings, ModelSettings

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
# Height and width of the detector's first pass over pictures of the usual proportions, from square to 16:9. Pictures of
# any other shape are shown to the detector on a CPU: an accelerator would have to plan for each of them.
_FIRST_PASSES = [
    shape
    for side in (384, 448, 480, 512, FIRST_LONG_SIDE)
    for shape in {(side, FIRST_LONG_SIDE), (FIRST_LONG_SIDE, side)}
]


def open_analyser(order: dict[str, Any]) -> tuple[FaceAnalyser, str, str]:
    """The analyser, warmed up, with the runtime and the provider that it really runs on.

    Raises ConfigurationError for bytes that are not those that were ordered, or a provider that is missing.
    """
    model = ModelSettings(**order["model"])
    detection = DetectionSettings(**order["detection"])
    max_batch_faces = int(order["max_batch_faces"])
    is_accelerated = model.providers[0] != CPU
    open_networks = _on_an_accelerator if is_accelerated else _on_a_cpu
    detector, recogniser = open_networks(order, model, max_batch_faces)
    entry = _entry(order, "recogniser")
    yunet = YuNet(detector, score_threshold=detection.score_threshold, nms_threshold=detection.nms_threshold)
    sface = Recogniser(
        recogniser,
        kind=entry.kind,
        dimension=entry.dimension,
        max_batch_faces=max_batch_faces,
        takes_pixels=is_accelerated,
    )
    analyser = FaceAnalyser(
        FaceFinder(yunet, nms_threshold=detection.nms_threshold, max_faces=detection.max_faces),
        # On a CPU a batch of looks gains nothing.
        LandmarkRefiner(yunet, max_looks=2 * max_batch_faces if is_accelerated else 2),
        Templater(sface, cohort_mean(entry)),
        str(order["model_id"]),
        model.mirror,
    )
    analyser.warm_up()
    runtime = runtime_name() if model.precision == "float32" else f"{runtime_name()} {model.precision}"
    return analyser, runtime, recogniser.provider


def _on_a_cpu(order: dict[str, Any], model: ModelSettings, _max_batch_faces: int) -> tuple[ModelSession, ModelSession]:
    """Detector and recogniser as they were prepared."""

    def opened(role: str) -> ModelSession:
        return OnnxruntimeSession(
            _read(order, role), providers=model.providers, allow_fallback=model.allow_fallback, threads=model.threads
        )

    return opened("detector"), opened("recogniser")


def _on_an_accelerator(
    order: dict[str, Any], model: ModelSettings, max_batch_faces: int
) -> tuple[ModelSession, ModelSession]:
    """Detector and recogniser, the latter for pixels, with a session for each shape that calls bring as a rule."""
    from services.embed.models.accelerated import halve_precision, take_pixels  # noqa: PLC0415 - a CPU needs no onnx

    scale, mean = INPUT_SCALING[_entry(order, "recogniser").kind]
    pixel_network = take_pixels(_read(order, "recogniser"), scale=scale, mean=mean)
    recogniser = halve_precision(pixel_network) if model.precision == "float16" else pixel_network
    detector = _read(order, "detector")
    batches = [size for size in _BATCHES if size <= max_batch_faces]
    looks = [(size, 3, LOOK_PX, LOOK_PX) for size in (*batches, 2 * max(batches))]
    passes = [(1, 3, height, width) for height, width in _FIRST_PASSES]

    def opened(network: bytes) -> Callable[[], ModelSession]:
        return lambda: OnnxruntimeSession(network, providers=model.providers, allow_fallback=model.allow_fallback)

    def on_a_cpu(network: bytes) -> ModelSession:
        return OnnxruntimeSession(network, providers=[CPU], threads=model.threads)

    faces = [(size, SIDE, SIDE, 3) for size in batches]
    return (
        PaddedBatches(
            SessionPerShape(opened(detector), [*passes, *looks], np.float32, on_a_cpu(detector)),
            [size for size, *_ in looks],
        ),
        PaddedBatches(SessionPerShape(opened(recogniser), faces, np.uint8, on_a_cpu(pixel_network)), batches),
    )


def _entry(order: dict[str, Any], role: str) -> ModelEntry:
    return ModelEntry.model_validate(order[role]["entry"])


def _read(order: dict[str, Any], role: str) -> bytes:
    network = order[role]
    return PreparedModel(_entry(order, role), Path(network["path"]), network["sha256"]).read()
