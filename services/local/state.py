"""What a running platform leaves in its data folder for others: one lock, one state file."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import psutil

from services.local.deployment import DataFolder, ServicePorts
from services.shared.errors import ConfigurationError

Phase = Literal["starting", "ready", "stopping"]
_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
_ORPHAN_WAIT_S = 60.0  # services of a killed supervisor stop by themselves, within their own grace periods


@dataclass(frozen=True)
class PlatformState:
    """Who supervises since when (process start, Unix seconds), where the services listen, what is waited for."""

    pid: int
    started_at: float
    phase: Phase
    ports: Mapping[str, ServicePorts]
    waiting_for: Mapping[str, str] = field(default_factory=dict)

    def is_alive(self) -> bool:
        """Whether that very process still runs; a reused process id is another process, and one that has ended but was
        not yet waited for by its parent (a zombie: common where process 1 of a container reaps nothing) runs no more.
        """
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started_at) < 1.0 and process.status() not in _ENDED
        except psutil.Error:
            return False


def write_state(data: DataFolder, state: PlatformState) -> None:
    temporary = data.state.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(state), indent=1), "utf-8")
    temporary.replace(data.state)


def read_state(data: DataFolder) -> PlatformState | None:
    """The state that was last written; None when there is none. It may be of a platform that was killed."""
    try:
        found = json.loads(data.state.read_text("utf-8"))
        ports = {service: ServicePorts(**pair) for service, pair in found.pop("ports").items()}
        return PlatformState(**found, ports=ports)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def running_state(data: DataFolder) -> PlatformState | None:
    """The state of the platform that runs on this data now, or None."""
    state = read_state(data)
    return state if state is not None and state.is_alive() else None


class PlatformLock:
    """One platform a data folder. Held by the supervisor and, through the inherited descriptor, by every service:
    a second platform cannot start while any process of a killed one still writes."""

    def __init__(self, data: DataFolder) -> None:
        self._data = data
        self.descriptor = -1

    def acquire(self, waiting: Callable[[str], None]) -> None:
        """Raises ConfigurationError when a platform runs here. Waits for the leftovers of one that was killed."""
        self.descriptor = self._open()
        deadline = time.monotonic() + _ORPHAN_WAIT_S
        has_said = False
        while not self._try():
            state = running_state(self._data)
            if state is not None or time.monotonic() > deadline:
                raise _already_running(self._data, state)
            if not has_said:
                waiting("services of an earlier run are still stopping")
                has_said = True
            time.sleep(0.1)

    def _open(self) -> int:
        try:
            self._data.root.mkdir(parents=True, exist_ok=True)
            return os.open(self._data.lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"{self._data.root} cannot hold a platform's data: {error.strerror}.",
                advice="Give a folder that you may write to with --data.",
            ) from error

    def _try(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _already_running(data: DataFolder, state: PlatformState | None) -> ConfigurationError:
    who = f"process {state.pid}" if state is not None else "a process of an earlier run"
    return ConfigurationError(
        f"A platform already runs on {data.root} ({who}).",
        advice=f"Use it (`likeness status --data {data.root}`), stop it (`likeness down --data {data.root}`), "
        "or give another folder with --data.",
    )
