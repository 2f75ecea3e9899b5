"""Networks, and real faces to run them on."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.embed.models.manifest import Manifest, load_manifest
from services.embed.models.prepare import prepare
from services.embed.models.store import ModelStore, PreparedModel
from services.shared.packages import cache_folder
from tests.support.faces import DevelopmentFaces


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    return load_manifest()


@pytest.fixture(scope="session")
def prepared_models(manifest: Manifest) -> dict[str, PreparedModel]:
    """Every network of the manifest by role, fetched where that has not been done."""
    store = ModelStore(cache_folder())
    for entry in manifest.model:
        store.fetch(entry, (), prepare)
    return {entry.role: store.open(entry) for entry in manifest.model}


@pytest.fixture(scope="session")
def some_faces(faces: DevelopmentFaces) -> list[Path]:
    """A sample of stills from every source."""
    return [still.path for still in faces.stills[::60]]
