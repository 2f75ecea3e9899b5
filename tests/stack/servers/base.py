"""What every server needs: a cache to be installed in, a bounded start, a certain end."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from services.local.ports import reserve_ports
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

_INSTALL_TIMEOUT_S = 1500  # MinIO compiles for minutes on a busy two-core machine
_STOP_TIMEOUT_S = 60  # for certain: longer than any server of ours takes on a busy machine


class ServerUnavailable(AssertionError):
    """A real server cannot be had here. The tests that need it fail and say why: nothing is skipped in silence."""


def servers_cache() -> Path:
    """Where installed servers are kept between runs, outside the checkout."""
    root = os.environ.get("LIKENESS_CACHE") or str(Path.home() / ".cache" / "likeness")
    path = Path(root) / "servers"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def installing(name: str) -> Iterator[Path]:
    """The folder of one server in the cache, held alone, so that two runs never install into it at once."""
    folder = servers_cache() / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def install_once(name: str, version: str, install: Callable[[Path], None]) -> Path:
    """Install a version unless it is there already; a half-done installation is thrown away and done again."""
    with installing(name) as folder:
        done = folder / version
        if not (done / ".installed").is_file():
            shutil.rmtree(done, ignore_errors=True)
            done.mkdir()
            install(done)
            (done / ".installed").touch()
    return done


def run(
    command: Sequence[str | Path],
    what: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
    timeout_s: float = _INSTALL_TIMEOUT_S,
) -> str:
    """Run a command to its end and return its output; ServerUnavailable with the end of the output when it fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerUnavailable(f"{what}: {error}") from error
    if done.returncode != 0:
        raise ServerUnavailable(f"{what} failed ({done.returncode}): …{done.stdout[-1500:]}")
    return done.stdout


def apt_update() -> None:
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    run([*as_root, "apt-get", "update", "-qq"], "apt-get update", env={"DEBIAN_FRONTEND": "noninteractive"})


def apt_install(*packages: str) -> None:
    """Install Debian packages without a prompt."""
    if shutil.which("apt-get") is None:
        raise ServerUnavailable(f"{', '.join(packages)} not found, and there is no apt-get to install them with")
    apt_update()
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    run(
        [*as_root, "apt-get", "install", "-qq", "-y", "--no-install-recommends", *wait, *packages],
        f"apt-get install {' '.join(packages)}",
        env=quiet,
    )


def program(name: str, package: str) -> str:
    """The path of a program, installed from a Debian package when it is missing."""
    if shutil.which(name) is None:
        apt_install(package)
    found = shutil.which(name)
    if found is None:
        raise ServerUnavailable(f"{name} is not on the PATH although {package} was installed")
    return found


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on; all different."""
    return reserve_ports("127.0.0.1", count)


def temporary_data(name: str) -> Path:
    """An empty folder for a server's data, removed by ServerProcess.discard."""
    return Path(tempfile.mkdtemp(prefix=f"likeness-{name}-"))


class ServerProcess:
    """One server process and its data. `start` after `kill` begins again on the same data, as after a crash."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        data: Path,
        *,
        is_ready: Callable[[], bool],
        ready_timeout_s: float = 180.0,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.data = data
        self._command = [str(part) for part in command]
        self._is_ready = is_ready
        self._ready_timeout_s = ready_timeout_s
        self._env = {**os.environ, **(env or {})}
        self._user = user
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    def start(self) -> None:
        """Start and wait until it answers; ServerUnavailable with the end of its log when it does not."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.data,
                env=self._env,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + self._ready_timeout_s
        while not self._is_ready():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                tail = self.log.read_text("utf-8", "replace")[-2000:]
                self.kill()
                raise ServerUnavailable(f"{self.name} {'ended' if ended else 'did not answer'} while starting: …{tail}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        if self._process is None:
            return
        self._signal(self._stop_signal)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End it, its children and theirs at once, as a crash of the machine does; none of them is left afterwards.

        PostgreSQL's children are in groups of their own: while one of them lives, the server does not start again.
        """
        if self._process is None:
            return
        self._signal(signal.SIGSTOP)  # so that it makes no more of them
        family = _descendants(self._process.pid)
        self._signal(signal.SIGKILL)
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait(_STOP_TIMEOUT_S)
        self._process = None
        wait_until(lambda: all(map(has_ended, family)), _STOP_TIMEOUT_S, f"the processes of {self.name} to end")

    def pause(self) -> None:
        """Stop it in its tracks: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def discard(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def accepts_connections(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False
