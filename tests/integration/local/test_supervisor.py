"""The supervisor with a real service process: starts, watches, restarts, stops, and refuses what it must."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from services.local.deployment import HOST, DataFolder, ServicePorts, free_ports
from services.local.readiness import waiting_for
from services.local.state import read_state, running_state
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

Start = Callable[..., subprocess.Popen[str]]
READY_S = 180.0  # on a machine that is busy with other things
END_S = 120.0


@pytest.fixture
def ports() -> ServicePorts:
    return free_ports()["review"]


@pytest.fixture
def start(tmp_path: Path, ports: ServicePorts) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(**settings: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.integration.local.review_platform", str(tmp_path / "data")]
        process = subprocess.Popen(
            [*command, str(ports.http), str(ports.grpc)],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=END_S)


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def _phase(data: DataFolder) -> str:
    state = running_state(data)
    return state.phase if state is not None else "stopped"


def _wait_ready(data: DataFolder, process: subprocess.Popen[str]) -> int:
    """Wait for the platform; the process id of its review service."""

    def is_ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the platform ended:\n{process.communicate(timeout=END_S)[0]}")
        return _phase(data) == "ready"

    wait_until(is_ready, READY_S, "the platform to be ready")
    return _service_pid(data)


def _service_pid(data: DataFolder) -> int:
    state = read_state(data)
    assert state is not None
    return next((child.pid for child in psutil.Process(state.pid).children()), 0)


def test_it_starts_says_where_and_stops_all_on_sigterm(start: Start, data: DataFolder, ports: ServicePorts) -> None:
    process = start()
    running = psutil.Process(_wait_ready(data, process))
    assert not waiting_for(ports.http)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=END_S)
    assert process.returncode == 0
    assert f"{HOST}:{ports.http}" in said
    assert has_ended(running)
    assert read_state(data) is None


def test_tokens_are_renewed_at_every_start_and_the_key_is_kept(start: Start, data: DataFolder) -> None:
    for _ in range(2):
        process = start()
        _wait_ready(data, process)
        process.terminate()
        process.communicate(timeout=END_S)
    assert {path.name for path in data.tokens.iterdir()} >= {"jwks.json", "operator.token", "custodian.token"}


def test_a_service_that_dies_is_started_again_and_it_says_so(
    start: Start, data: DataFolder, ports: ServicePorts
) -> None:
    process = start()
    first = _wait_ready(data, process)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: _service_pid(data) not in {0, first}, READY_S, "a new process")
    wait_until(lambda: not waiting_for(ports.http), READY_S, "the new process to be ready")
    process.terminate()
    said, _ = process.communicate(timeout=END_S)
    assert "killed by SIGKILL" in said
    assert "starting it again" in said


def test_services_end_with_a_killed_supervisor(start: Start, data: DataFolder) -> None:
    process = start()
    service = _wait_ready(data, process)
    orphan = psutil.Process(service)
    process.kill()
    process.communicate(timeout=END_S)
    wait_until(lambda: has_ended(orphan), END_S, "the orphaned service to stop by itself")


def test_after_a_killed_supervisor_the_next_start_waits_for_its_services(start: Start, data: DataFolder) -> None:
    first = start()
    _wait_ready(data, first)
    first.kill()  # and not waited for: a zombie, as under a parent that reaps nothing
    second = start()

    def second_is_ready() -> bool:
        if second.poll() is not None:
            raise AssertionError(f"the second platform ended:\n{second.communicate(timeout=END_S)[0]}")
        return _phase(data) == "ready" and getattr(read_state(data), "pid", 0) == second.pid

    wait_until(second_is_ready, READY_S, "the second platform to be ready")


def test_a_killed_supervisor_that_nobody_has_waited_for_does_not_count_as_running(
    start: Start, data: DataFolder
) -> None:
    process = start()
    _wait_ready(data, process)
    process.kill()
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, END_S, "the process to end")
    assert running_state(data) is None


def test_two_platforms_never_share_data(start: Start, data: DataFolder) -> None:
    first = start()
    _wait_ready(data, first)
    second = start()
    said, _ = second.communicate(timeout=END_S)
    assert second.returncode == 1
    assert "already runs" in said
    assert "likeness down" in said
    assert _phase(data) == "ready"


def test_an_occupied_port_is_named_with_what_to_do(start: Start, ports: ServicePorts) -> None:
    with socket.create_server((HOST, ports.http)):
        process = start()
        said, _ = process.communicate(timeout=END_S)
    assert process.returncode == 1
    assert str(ports.http) in said
    assert f"--ports review.http={ports.http + 1000}" in said


def test_a_service_that_dies_at_start_ends_the_start_with_its_last_words(start: Start, data: DataFolder) -> None:
    process = start(LIKENESS_REVIEW__LOG_LEVEL="LOUD")
    said, _ = process.communicate(timeout=END_S)
    assert process.returncode == 1
    assert "review stopped while starting" in said
    assert "LOUD" in said
    assert str(data.log_of("review")) in said.replace("\n", "")


def test_a_folder_that_cannot_hold_data_is_named(start: Start, data: DataFolder) -> None:
    data.root.write_text("a file")
    process = start()
    said, _ = process.communicate(timeout=END_S)
    assert process.returncode == 1
    assert "cannot hold a platform's data" in said
    assert "Traceback" not in said
