"""Pools and services of embed as real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from services.embed.gate.pool import GatePool
from services.embed.settings import GateSettings
from services.shared.telemetry import Metrics
from tests.support.portraits import portraits


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture(scope="module")
def gate() -> Iterator[GatePool]:
    """Its limit is the processor's time; that on the wall passes while other work has the processor."""
    pool = GatePool(GateSettings(workers=2, cpu_s=3, wall_s=120), Metrics(CollectorRegistry()))
    pool.start()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def portrait_files() -> list[bytes]:
    """Real portraits, one face each."""
    return portraits()
