"""Fixtures that every kind of test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faces import DevelopmentFaces, development_faces, hostile_files
from tests.support.platform import Platform


@pytest.fixture(scope="session")
def faces() -> DevelopmentFaces:
    """The development faces; skips where the machine has none."""
    return development_faces()


@pytest.fixture(scope="session")
def hostile() -> Path:
    """The folder of hostile files; skips where the machine has none."""
    return hostile_files()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for all tests that leave its services running. To kill services, make a Platform of your own."""
    with Platform(tmp_path_factory.mktemp("platform")) as running:
        yield running
