"""Fixtures that every kind of test may use."""

from __future__ import annotations

import os

# Tests fork to start services. With its fork support gRPC starts its pollers again in the child, which then dies of
# SIGABRT before it can exec when its descriptors are closed first: seen once in a few hundred starts.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.faces import DevelopmentFaces, development_faces, hostile_files
from tests.support.platform import Platform

# The same examples on every machine and on every day, however slow it is: what fails once fails again.
settings.register_profile("likeness", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("likeness")


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
