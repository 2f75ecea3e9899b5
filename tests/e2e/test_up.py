"""`likeness up` with every service: what was enrolled is there after a restart, and a killed service comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from services.local import background
from services.local.deployment import HOST, DataFolder
from services.local.state import PlatformState, running_state
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.faces import DevelopmentFaces
from tests.support.waiting import wait_until


def _likeness(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data")
    yield folder
    background.stop(folder)


def _up(data: DataFolder) -> PlatformState:
    done = _likeness("up", "--data", str(data.root), "--ports", "auto", "--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    state = running_state(data)
    assert state is not None
    assert state.phase == "ready"
    return state


def _client(data: DataFolder, state: PlatformState, service: str, role: str) -> httpx.Client:
    token = (data.tokens / f"{role}.token").read_text()
    url = f"http://{HOST}:{state.ports[service].http}"
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)


def _kill(state: PlatformState, service: str) -> None:
    for child in psutil.Process(state.pid).children():
        if f"services.{service}" in child.cmdline():
            os.kill(child.pid, signal.SIGKILL)
            return
    raise AssertionError(f"{service} does not run")


@pytest.mark.timeout(900)
def test_nothing_is_lost_over_restarts(data: DataFolder, faces: DevelopmentFaces) -> None:
    reference, probe = faces.mated_pairs()[0]
    image = probe.path.read_bytes()
    first = _up(data)
    with (
        _client(data, first, "ingest", "custodian") as custodian,
        _client(data, first, "search", "operator") as officer,
    ):
        enrolment_id = post_enrolment(custodian, reference.path.read_bytes(), "UP-1").json()["enrolment_id"]
        assert wait_settled(custodian, [enrolment_id])[enrolment_id] == "enrolled"
        before = post_search(officer, image).json()
        _kill(first, "search")
        wait_until(lambda: _answers(officer, image), 180.0, "searches to work again after a kill")
    assert _likeness("down", "--data", str(data.root)).returncode == 0
    assert running_state(data) is None

    second = _up(data)
    with _client(data, second, "search", "operator") as officer:
        after = post_search(officer, image).json()
        assert after["candidates"] == before["candidates"]
        # What kill -9 left without its last note is settled within a minute of the restart.
        seen = partial(officer.get, f"/v1/searches/{before['search_id']}")
        wait_until(lambda: "candidates" in seen().json(), 180.0, lambda: f"the search of before: {seen().text[:300]}")
        assert seen().json()["candidates"] == before["candidates"]
    # A busy service may be late with its answer to a single question.
    wait_until(lambda: _waits_for(data) == {""}, 180.0, lambda: f"services at rest: {_waits_for(data)}")
    refused = _likeness("up", "--data", str(data.root), "--ports", "auto")
    assert refused.returncode == 1
    assert "already runs" in refused.stderr


def _waits_for(data: DataFolder) -> set[str]:
    told = json.loads(_likeness("status", "--data", str(data.root), "--json").stdout)
    assert told["phase"] == "ready"
    return {service["waiting_for"] for service in told["services"].values()}


def _answers(client: httpx.Client, image: bytes) -> bool:
    try:
        return post_search(client, image).status_code == 200
    except httpx.TransportError:
        return False
