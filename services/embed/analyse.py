"""The use case: an untrusted file in, faces and templates out."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from time import monotonic, perf_counter
from typing import Any

import numpy as np

from services.embed.faces.assessment import assess
from services.embed.file_signals import file_signals
from services.embed.gate.pool import DecodedLease, GatePool
from services.embed.ports import Selection
from services.embed.workers.inference_pool import InferencePool
from services.shared.biometric import (
    Box,
    DetectedFace,
    FaceTemplate,
    ImageAnalysis,
    ImageInfo,
    ModelProvenance,
    ProbeSignal,
    Quality,
)
from services.shared.errors import ImageRefused, InvalidRequest, Overloaded
from services.shared.telemetry import Metrics
from services.shared.tracing import stages_done

_IN_ORDER = ("gate", "queue", "detect", "template")


class AnalyseImage:
    """Decodes in the gate, then detects and templates. Takes at most `max_pending` calls, refuses more at once."""

    def __init__(
        self,
        gate: GatePool,
        inference: InferencePool,
        model: ModelProvenance,
        metrics: Metrics,
        *,
        max_pending: int,
    ) -> None:
        self._gate = gate
        self._inference = inference
        self.model = model
        self._metrics = metrics
        self._max_pending = max_pending
        self._lock = Lock()
        self._pending = 0

    def __call__(self, image: bytes, selection: Selection, face_index: int, timeout_s: float) -> ImageAnalysis:
        """Raises ImageRefused, InvalidRequest (no face of that index), Overloaded, PlatformError."""
        started = perf_counter()
        deadline_s = monotonic() + timeout_s
        with self._admitted():
            try:
                with self._gate.decoded(image, deadline_s) as lease:
                    answer = self._inference.analyse(lease, selection, face_index, deadline_s)
            except ImageRefused as refusal:
                self._metrics.embed_refusals_total.labels(refusal.code).inc()
                raise
        faces = tuple(_face(item, self.model.model_id) for item in answer["faces"])
        if selection is Selection.BY_INDEX and face_index >= len(faces):
            raise InvalidRequest(
                f"There is no face {face_index}; the picture has {len(faces)}.",
                advice="Give the index of a face of this picture, counted from 0.",
            )
        timings_ms = self._timings(lease, answer, (perf_counter() - started) * 1000)
        return ImageAnalysis(_info(lease, image), faces, self.model, timings_ms)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        with self._lock:
            if self._pending >= self._max_pending:
                raise Overloaded("Too many images are waiting.", advice="Try again in a few seconds.")
            self._pending += 1
            self._metrics.embed_queue_images.set(self._pending)
        try:
            yield
        finally:
            with self._lock:
                self._pending -= 1
                self._metrics.embed_queue_images.set(self._pending)

    def _timings(self, lease: DecodedLease, answer: Mapping[str, Any], total_ms: float) -> dict[str, float]:
        timings = {
            "gate": lease.gate_ms,
            "detect": float(answer["detect_ms"]),
            "template": float(answer["template_ms"]),
        }
        timings["queue"] = max(0.0, total_ms - sum(timings.values()))
        for stage, value in timings.items():
            self._metrics.embed_stage_seconds.labels(stage).observe(value / 1000)
        stages_done({stage: timings[stage] for stage in _IN_ORDER})
        if answer["batch_faces"]:
            self._metrics.embed_batch_faces.observe(answer["batch_faces"])
        return timings


def _info(lease: DecodedLease, file: bytes) -> ImageInfo:
    image = lease.image
    width, height = image.upright_size
    said = file_signals(file)
    return ImageInfo(
        image.format, width, height, image.orientation, image.frame_count, decode_scale=1, file_signals=said
    )


def _face(item: Mapping[str, Any], model_id: str) -> DetectedFace:
    vector = item["vector"]
    quality = Quality(item["unified"], item["components"])
    return DetectedFace(
        box=Box(*item["box"]),
        landmarks=tuple((x, y) for x, y in item["landmarks"]),
        detection_score=item["score"],
        inter_eye_px=item["inter_eye_px"],
        quality=quality,
        template=None if vector is None else FaceTemplate(np.array(vector, dtype=np.float32), model_id),
        assessment=assess(quality),
        signals=tuple(ProbeSignal(*signal) for signal in item["signals"]),
        chip=base64.b64decode(item["chip"]),
    )
