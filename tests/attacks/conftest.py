"""One platform for all attacks: real processes, mutual TLS, the stub model (pictures drawn by code, nobody's face)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.outsider import Listener
from tests.attacks.scene import SETTINGS, Scene
from tests.integration.search.conftest import filled_peers
from tests.integration.search.peers import Peers
from tests.integration.search.process import SearchThread
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


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    """What search asks: a ledger of people drawn by code, and a log, both in this process."""
    with filled_peers() as running:
        yield running


@pytest.fixture(scope="module")
def search(peers: Peers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchThread]:
    """Search alone, in a thread: for attacks that have to look into what it was asked or into its log."""
    with SearchThread(tmp_path_factory.mktemp("search"), peers) as running:
        yield running


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A server that an attacker hopes to be called at."""
    with Listener() as opened:
        yield opened
