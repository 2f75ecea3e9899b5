"""One service as a child process that never outlives its supervisor."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.local.deployment import module_of

_PR_SET_PDEATHSIG = 1
_MAX_LOG_BYTES = 16 * 1024 * 1024
# Loaded before any fork: between fork and exec nothing may be looked up or allocated that a lock could guard.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends, however it ends. Runs in the child, before exec."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class ServiceProcess:
    """`python -P -m services.<name>` (nothing is imported from the current folder), its output appended to a log file.

    Start it from a thread that lives as long as the platform: the kernel takes the thread that forks for the parent.
    `held` are file descriptors that stay open in the child, so that a lock on them lasts as long as any of them lives.
    """

    def __init__(self, service: str, environment: Mapping[str, str], log: Path, held: Sequence[int] = ()) -> None:
        self.service = service
        self._environment = dict(environment)
        self._log = log
        self._held = tuple(held)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        _rotate(self._log)
        with self._log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"services.{module_of(self.service)}"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A group of its own, so that Ctrl-C reaches the supervisor alone, which stops them in order.
                process_group=0,
                pass_fds=self._held,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call; started from a process without threads
            )

    def exit_code(self) -> int | None:
        """None while it runs, and before the first start."""
        return self._process.poll() if self._process is not None else None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_lines(self, count: int = 15) -> list[str]:
        """The end of what it wrote since it was last started."""
        if not self._log.exists():
            return []
        with self._log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(min(self._log_start, size), size - 64 * 1024))
            return stream.read().decode("utf-8", "replace").splitlines()[-count:]


def describe_exit(code: int) -> str:
    """An exit status in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
