"""The prepared networks, where the benchmarks run them without the platform."""

from __future__ import annotations

from pathlib import Path

from services.embed.models.manifest import load_manifest
from services.embed.models.store import ModelStore
from services.shared.packages import cache_folder

DETECTOR, RECOGNISER = "yunet-2023mar-int8bq", "sface-2021dec-int8bq"


def prepared_paths() -> tuple[Path, Path]:
    """The prepared detector and recogniser in the model cache; `make models` puts them there."""
    store, manifest = ModelStore(cache_folder()), load_manifest()
    entries = {entry.name: entry for entry in manifest.model}
    return store.open(entries[DETECTOR]).path, store.open(entries[RECOGNISER]).path


def prepared_models() -> tuple[bytes, bytes]:
    detector, recogniser = prepared_paths()
    return detector.read_bytes(), recogniser.read_bytes()
