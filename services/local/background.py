"""A platform in the background: started, looked at and stopped from another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from services.local.deployment import DataFolder
from services.local.process import die_with_parent
from services.local.state import PlatformState, read_state, running_state
from services.shared.errors import ConfigurationError, DependencyUnavailable

_TICK_S = 0.05
_START_TIMEOUT_S = 240.0
_STOP_TIMEOUT_S = 120.0


def start(
    data: DataFolder,
    ports: str,
    *,
    allow_synthetic: bool = False,
    dies_with_caller: bool = False,
    waiting: Callable[[Mapping[str, str]], None] = lambda _reasons: None,
) -> PlatformState:
    """Start `likeness up` as a process of its own and return when every service is ready.

    `ports` is what `--ports` takes. With `dies_with_caller` the platform stops when the calling thread ends.
    Raises DependencyUnavailable with what the platform said when it does not come up.
    """
    data.logs.mkdir(parents=True, exist_ok=True)
    log = data.logs / "platform.log"
    command = [sys.executable, "-P", "-m", "services.cli", "up", "--data", str(data.root), "--ports", ports]
    command += ["--allow-synthetic"] if allow_synthetic else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent if dies_with_caller else None,  # noqa: PLW1509 - one prctl call
        )
    return _wait_until_ready(process, data, log, waiting)


def _wait_until_ready(
    process: subprocess.Popen[bytes],
    data: DataFolder,
    log: Path,
    waiting: Callable[[Mapping[str, str]], None],
) -> PlatformState:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DependencyUnavailable(
                f"The platform did not start.\n{log.read_text('utf-8', 'replace').strip()}",
                advice=f"Mend what it names and start again; its logs are in {data.logs}.",
            )
        state = read_state(data)
        if state is not None and state.pid == process.pid:
            if state.phase == "ready":
                return state
            waiting(state.waiting_for)
        time.sleep(_TICK_S)
    process.terminate()
    raise DependencyUnavailable(
        f"The platform was not ready within {_START_TIMEOUT_S:g} s.", advice=f"Read the logs in {data.logs}."
    )


def stop(data: DataFolder) -> bool:
    """Stop the platform of this data and wait until all of it has ended; False when none runs."""
    state = running_state(data)
    if state is None:
        return False
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while state.is_alive():
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"The platform (process {state.pid}) did not stop within {_STOP_TIMEOUT_S:g} s.",
                advice=f"Read {data.logs / 'platform.log'}, then kill process {state.pid}.",
            )
        time.sleep(_TICK_S)
    return True
