"""The networks that a worker's order names, opened on what the machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.embed.adapters.onnxruntime_session import CPU, OnnxruntimeSession, runtime_name
from services.embed.adapters.padded_batches import PaddedBatches
from services.embed.faces.analyser import FaceAnalyser
from services.embed.faces.detector import DIVISOR, YuNet
from services.embed.faces.finder import FIRST_LONG_SIDE, FaceFinder
from services.embed.faces.landmarks import LOOK_PX, LandmarkRefiner
from services.embed.faces.recogniser import INPUT_SCALING, Recogniser
from services.embed.faces.templates import Templater
from services.embed.models.cohort import cohort_mean
from services.embed.models.manifest import ModelEntry
from services.embed.models.store import PreparedModel
from services.embed.settings import DetectionSettings, ModelSettings

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
# Where an accelerator runs the detector, these shapes are run at the start: a first pass over pictures of any
# proportions, and looks at faces.
_FIRST_PASSES = [
    shape
    for side in range(DIVISOR, FIRST_LONG_SIDE + 1, DIVISOR)
    for shape in {(1, side, FIRST_LONG_SIDE), (1, FIRST_LONG_SIDE, side)}
]


def open_analyser(order: dict[str, Any]) -> tuple[FaceAnalyser, str, str]:
    """The analyser, warmed up, with the runtime and the provider that it really runs on.

    Raises ConfigurationError for bytes that are not those that were ordered, or a provider that is missing.
    """
    model = ModelSettings(**order["model"])
    networks = _Networks(order, model, int(order["max_batch_faces"]))
    detection = DetectionSettings(**order["detection"])
    yunet = networks.detector(detection)
    recogniser, provider = networks.recogniser()
    analyser = FaceAnalyser(
        FaceFinder(yunet, nms_threshold=detection.nms_threshold, max_faces=detection.max_faces),
        LandmarkRefiner(yunet, max_looks=2 * networks.faces_at_once),
        Templater(recogniser, cohort_mean(networks.entry("recogniser"))),
        str(order["model_id"]),
        model.mirror,
    )
    networks.warm_up(yunet, recogniser)
    analyser.warm_up()
    runtime = runtime_name() if model.precision == "float32" else f"{runtime_name()} {model.precision}"
    return analyser, runtime, provider


class _Networks:
    """Opens the ordered networks: as prepared on a CPU, with few shapes and pixels as input on anything else."""

    def __init__(self, order: dict[str, Any], model: ModelSettings, max_batch_faces: int) -> None:
        self._order = order
        self._model = model
        self._max_batch_faces = max_batch_faces
        self._is_accelerated = model.providers[0] != CPU

    @property
    def faces_at_once(self) -> int:
        """How many faces are looked at again in one run: on a CPU a batch of looks gains nothing."""
        return self._max_batch_faces if self._is_accelerated else 1

    def entry(self, role: str) -> ModelEntry:
        return ModelEntry.model_validate(self._order[role]["entry"])

    def detector(self, detection: DetectionSettings) -> YuNet:
        session = self._session(self._read("detector"))
        return YuNet(
            PaddedBatches(session, _BATCHES) if self._is_accelerated else session,
            score_threshold=detection.score_threshold,
            nms_threshold=detection.nms_threshold,
        )

    def recogniser(self) -> tuple[Recogniser, str]:
        entry, network = self.entry("recogniser"), self._read("recogniser")
        if self._is_accelerated:
            from services.embed.models.accelerated import halve_precision, take_pixels  # noqa: PLC0415 - needs onnx

            scale, mean = INPUT_SCALING[entry.kind]
            network = take_pixels(network, scale=scale, mean=mean)
            if self._model.precision == "float16":
                network = halve_precision(network)
        session = self._session(network)
        recogniser = Recogniser(
            PaddedBatches(session, self._batches) if self._is_accelerated else session,
            kind=entry.kind,
            dimension=entry.dimension,
            max_batch_faces=self._max_batch_faces,
            takes_pixels=self._is_accelerated,
        )
        return recogniser, session.provider

    def warm_up(self, yunet: YuNet, recogniser: Recogniser) -> None:
        """Every shape that calls will bring, so that none of them waits for the runtime to get ready for it."""
        if self._is_accelerated:
            yunet.warm_up(_FIRST_PASSES)
            yunet.warm_up((size, LOOK_PX, LOOK_PX) for size in _BATCHES if size <= 2 * self._max_batch_faces)
            recogniser.warm_up(self._batches)

    @property
    def _batches(self) -> list[int]:
        return [size for size in _BATCHES if size <= self._max_batch_faces]

    def _read(self, role: str) -> bytes:
        network = self._order[role]
        return PreparedModel(self.entry(role), Path(network["path"]), network["sha256"]).read()

    def _session(self, network: bytes) -> OnnxruntimeSession:
        model = self._model
        return OnnxruntimeSession(
            network, providers=model.providers, allow_fallback=model.allow_fallback, threads=model.threads
        )
