"""One platform for all attacks: real processes, mutual TLS, the stub model (pictures drawn by code, nobody's face)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.outsider import Listener
from tests.attacks.scene import SETTINGS, Scene
from tests.support.platform import Platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Started once for every attack. Do not kill its services; what is stored in it stays until the end."""
    root: Path = tmp_path_factory.mktemp("attacked")
    with Platform(root, settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="session")
def scene(platform: Platform) -> Scene:
    """Something to attack: an enrolled reference and a search of the development force."""
    return Scene.make(platform)


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A server that an attacker hopes to be called at."""
    with Listener() as opened:
        yield opened
