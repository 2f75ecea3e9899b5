"""Settings of embed: LIKENESS_EMBED__…"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import SettingsConfigDict

from services.embed.film.settings import FilmSettings
from services.shared.cores import usable_cores
from services.shared.packages import cache_folder
from services.shared.settings import MAX_IMAGE_BYTES, ServiceSettings

# Whose mirror image is templated as well: nobody's, that of references (the largest face is asked for) and of small
# faces, or everybody's. It takes a second run of the recogniser.
Mirror = Literal["never", "reference", "always"]


class ModelSettings(BaseModel):
    """Which networks, from which manifest, on which provider."""

    # `stub` puts a stand-in for the networks, which recognises nobody, for tests of load.
    kind: Literal["networks", "stub"] = "networks"
    # Another number is another model: its templates have nothing in common with those of the first.
    stub_number: int = Field(default=1, ge=1)
    detector: str = "yunet-2023mar-int8bq"
    recogniser: str = "sface-2021dec-int8bq"
    mirror: Mirror = "reference"
    # An administrator's manifest beside the packaged one.
    manifest_path: Path | None = None
    cache_path: Path = Field(default_factory=cache_folder)
    # Execution providers in order of preference, as onnxruntime names them.
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    # Without it, a configured provider that is missing stops the service.
    allow_fallback: bool = False
    # Floats that the recogniser computes in; float16 is for accelerators only.
    precision: Literal["float32", "float16"] = "float32"
    # Threads of one session. One worker process a core with one thread each is fastest on a CPU.
    threads: int = Field(default=1, ge=1)


class DetectionSettings(BaseModel):
    """How faces are found; part of the template's version."""

    score_threshold: float = Field(default=0.6, ge=0, le=1)
    nms_threshold: float = Field(default=0.3, ge=0, le=1)
    max_faces: int = Field(default=256, ge=1)


class GateSettings(BaseModel):
    """The limits under which untrusted bytes are decoded."""

    workers: int = Field(default_factory=usable_cores, ge=1)
    max_bytes: int = MAX_IMAGE_BYTES
    max_pixels: int = 50_000_000
    cpu_s: float = Field(default=5.0, gt=0)
    # The clock on the wall, for a worker that waits instead of computing or is starved of the processor.
    wall_s: float = Field(default=8.0, gt=0)
    memory_bytes: int = 1024**3
    # A worker is replaced after so many images, so that nothing that a decoder leaks or is left with stays.
    recycle_after_images: int = Field(default=2000, ge=1)

    @property
    def arenas(self) -> int:
        """Pieces of shared memory: three a worker, for the image that is looked at, the one that is decoded and the one
        that comes next."""
        return 3 * self.workers


class InferenceSettings(BaseModel):
    """Worker processes that run the networks."""

    workers: int = Field(default_factory=usable_cores, ge=1)
    # Images taken from the queue at once, their faces templated in one batch. More than 1 pays on a GPU only.
    max_batch_images: int = Field(default=1, ge=1)
    # Faces templated at once: more costs memory, and pays on a GPU only (64 there).
    max_batch_faces: int = Field(default=8, ge=1)
    # A worker that does not answer for so long is replaced.
    job_timeout_s: float = Field(default=20.0, gt=0)
    start_timeout_s: float = Field(default=60.0, gt=0)


class EmbedSettings(ServiceSettings):
    """Everything that embed can be told."""

    model_config = SettingsConfigDict(env_prefix="LIKENESS_EMBED__", env_nested_delimiter="__", extra="forbid")

    http_port: int = 8084
    grpc_port: int = 50062
    model: ModelSettings = Field(default_factory=ModelSettings)
    detection: DetectionSettings = DetectionSettings()
    gate: GateSettings = Field(default_factory=GateSettings)
    inference: InferenceSettings = Field(default_factory=InferenceSettings)
    film: FilmSettings = Field(default_factory=FilmSettings)
    # Calls in work or waiting; the next one is refused with Overloaded at once.
    max_pending: int = Field(default=64, ge=1)
