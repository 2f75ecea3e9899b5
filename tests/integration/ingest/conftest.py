"""One ingest process for the tests of a module that leave it running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.ingest.fakes import FakePeers
from tests.integration.ingest.service import IngestProcess


@pytest.fixture(scope="module")
def peers() -> Iterator[FakePeers]:
    with FakePeers().running() as peers:
        yield peers


@pytest.fixture(scope="module")
def ingest(peers: FakePeers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestProcess]:
    process = IngestProcess(tmp_path_factory.mktemp("ingest"), peers, {"LIKENESS_INGEST__ALLOW_SYNTHETIC": "true"})
    process.start_ready()
    yield process
    process.close()
