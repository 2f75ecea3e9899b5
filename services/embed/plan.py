"""What the inference workers are to run: the networks of the settings, verified, or their stand-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.embed.models.manifest import load_manifest
from services.embed.models.store import ModelStore, PreparedModel
from services.embed.settings import EmbedSettings
from services.embed.version import model_id_of, preprocessing_version
from services.shared.biometric import ModelProvenance

_STUB = "stub"
_STUB_DIMENSION = 128


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """`order` is what a worker is told when it starts; `model` lacks the runtime and provider that workers report."""

    order: dict[str, Any]
    model: ModelProvenance


def plan_workers(settings: EmbedSettings) -> WorkerPlan:
    """Raises ConfigurationError for a network that is not there or has a wrong byte."""
    common = {
        "model": settings.model.model_dump(mode="json"),
        "detection": settings.detection.model_dump(mode="json"),
        "max_batch_images": settings.inference.max_batch_images,
        "max_batch_faces": settings.inference.max_batch_faces,
        "max_arenas": settings.gate.arenas,
    }
    if settings.model.kind == "stub":
        model = _stub_provenance(settings.model.stub_number)
        return WorkerPlan({**common, "model_id": model.model_id}, model)
    manifest = load_manifest(settings.model.manifest_path)
    store = ModelStore(settings.model.cache_path)
    detector = store.open(manifest.get(settings.model.detector, "detector"))
    recogniser = store.open(manifest.get(settings.model.recogniser, "recogniser"))
    model = _provenance(settings, detector, recogniser)
    networks = {"detector": _described(detector), "recogniser": _described(recogniser)}
    return WorkerPlan({**common, **networks, "model_id": model.model_id}, model)


def _described(model: PreparedModel) -> dict[str, Any]:
    return {"entry": model.entry.model_dump(mode="json"), "path": str(model.path), "sha256": model.sha256}


def _provenance(settings: EmbedSettings, detector: PreparedModel, recogniser: PreparedModel) -> ModelProvenance:
    return ModelProvenance(
        model_id=model_id_of(detector.entry, recogniser.entry, settings.detection, settings.model.mirror),
        detector=detector.entry.name,
        detector_sha256=detector.entry.sha256,
        recogniser=recogniser.entry.name,
        recogniser_sha256=recogniser.entry.sha256,
        licence=f"{detector.entry.licence}; {recogniser.entry.licence}",
        dimension=recogniser.entry.dimension,
        preprocessing_version=preprocessing_version(recogniser.entry, settings.detection, settings.model.mirror),
        runtime="",
        provider="",
    )


def _stub_provenance(number: int) -> ModelProvenance:
    return ModelProvenance(
        model_id="stub-recognises-nobody" if number == 1 else f"stub-recognises-nobody-{number}",
        detector=_STUB,
        detector_sha256="0" * 64,
        recogniser=_STUB,
        recogniser_sha256="0" * 64,
        licence="none",
        dimension=_STUB_DIMENSION,
        preprocessing_version=_STUB,
        runtime="",
        provider="",
    )
