"""Starts the services of one machine as separate processes, keeps them running, stops them in order."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import FrameType
from typing import Protocol

import psutil

from services.local.certificates import RENEW_AFTER, LocalAuthority
from services.local.deployment import SERVICES, STOP_ORDER, DataFolder, ServicePorts, environment
from services.local.issuer import READY_TOKEN_LIFETIME, LocalIssuer
from services.local.process import ServiceProcess, describe_exit
from services.local.readiness import require_free_ports, waiting_for
from services.local.state import Phase, PlatformLock, PlatformState, write_state
from services.rpc.access import TOOLS
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailable
from services.shared.watchlists import WatchlistFile

_TICK_S = 0.1
_START_TIMEOUT_S = 180.0  # a first start may still migrate; a gallery of a million is read in seconds
_PORT_WAIT_S = 5.0
_STOP_TIMEOUT_S = 30.0  # longer than the services' own grace periods
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STABLE_AFTER_S = 30.0  # a service that ran this long gets the shortest delay again


class Reporter(Protocol):
    """Where the supervisor tells a person what happens."""

    def note(self, text: str) -> None: ...

    def waiting(self, reasons: Mapping[str, str]) -> None:
        """Called whenever the set of services that are waited for, or a reason, has changed."""
        ...

    def ready(self, elapsed_s: float) -> None: ...


@dataclass
class _Watched:
    """A process with its history of failures."""

    process: ServiceProcess
    started_s: float = 0.0
    failures: int = 0
    restart_at_s: float | None = None

    def start(self, now_s: float) -> None:
        self.process.start()
        self.started_s = now_s
        self.restart_at_s = None

    def schedule_restart(self, now_s: float) -> float:
        """The delay before the next start: longer with each failure in a row."""
        if now_s - self.started_s > _STABLE_AFTER_S:
            self.failures = 0
        delay_s = _BACKOFF_S[min(self.failures, len(_BACKOFF_S) - 1)]
        self.failures += 1
        self.restart_at_s = now_s + delay_s
        return delay_s


@dataclass
class Supervisor:
    """`run` blocks until SIGINT, SIGTERM or SIGHUP. One a process: it owns the process's signal handlers while it runs.

    Raises ConfigurationError when the data is in use or ports are taken, DependencyUnavailable when a service dies
    before all are ready; whatever was started has been stopped then.
    """

    data: DataFolder
    ports: Mapping[str, ServicePorts]
    clock: Clock
    reporter: Reporter
    inherited: Mapping[str, str]
    allow_synthetic: bool = False
    _stop_asked: bool = field(default=False, init=False)
    _watched: dict[str, _Watched] = field(default_factory=dict, init=False)

    def run(self) -> None:
        started_s = self.clock.monotonic_s()
        lock = PlatformLock(self.data)
        lock.acquire(self.reporter.note)
        handlers = {number: signal.signal(number, self._ask_to_stop) for number in _STOP_SIGNALS}
        try:
            issuer = prepare_data(self.data, self.clock)
            require_free_ports(self.ports, _PORT_WAIT_S, self.reporter.note)
            self._start_all(lock)
            if self._wait_until_ready():
                self.reporter.ready(self.clock.monotonic_s() - started_s)
                self._keep_running(issuer)
        finally:
            self._stop_all()
            self.data.state.unlink(missing_ok=True)
            lock.release()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_asked = True

    def _start_all(self, lock: PlatformLock) -> None:
        self._publish("starting", dict.fromkeys(self.ports, "starting"))
        for service in self.ports:
            settings = environment(service, self.data, self.ports, self.inherited, allow_synthetic=self.allow_synthetic)
            process = ServiceProcess(service, settings, self.data.log_of(service), held=(lock.descriptor,))
            self._watched[service] = _Watched(process)
            self._watched[service].start(self.clock.monotonic_s())

    def _wait_until_ready(self) -> bool:
        """Whether all became ready; False when asked to stop."""
        deadline_s = self.clock.monotonic_s() + _START_TIMEOUT_S
        reported: dict[str, str] = {}
        while not self._stop_asked:
            self._require_alive()
            reasons = self._not_ready()
            if not reasons:
                self._publish("ready", {})
                return True
            if reasons != reported:
                reported = reasons
                self._publish("starting", reasons)
                self.reporter.waiting(reasons)
            if self.clock.monotonic_s() > deadline_s:
                raise _not_started(reasons, self.data)
            time.sleep(_TICK_S)
        return False

    def _not_ready(self) -> dict[str, str]:
        reasons = {service: waiting_for(pair.http) for service, pair in self.ports.items()}
        return {service: reason for service, reason in reasons.items() if reason}

    def _require_alive(self) -> None:
        for service, watched in self._watched.items():
            code = watched.process.exit_code()
            if code is not None:
                raise _died_at_start(watched.process, code, self.data.log_of(service).as_posix())

    def _keep_running(self, issuer: LocalIssuer) -> None:
        renew_after_s = min(READY_TOKEN_LIFETIME / 2, RENEW_AFTER).total_seconds()
        renewed_s = self.clock.monotonic_s()
        while not self._stop_asked:
            now_s = self.clock.monotonic_s()
            for service, watched in self._watched.items():
                self._watch(service, watched, now_s)
            if now_s - renewed_s > renew_after_s:
                issuer.write_ready_tokens(watchlist_ids(self.data))
                renew_certificates(self.data, self.clock)
                renewed_s = now_s
            time.sleep(_TICK_S)

    def _watch(self, service: str, watched: _Watched, now_s: float) -> None:
        if watched.restart_at_s is not None:
            if now_s >= watched.restart_at_s:
                watched.start(now_s)
            return
        code = watched.process.exit_code()
        if code is not None:
            delay_s = watched.schedule_restart(now_s)
            self.reporter.note(
                f"{service} stopped ({describe_exit(code)}); starting it again in {delay_s:g} s. "
                f"Its log: {self.data.log_of(service)}"
            )

    def _stop_all(self) -> None:
        if self._watched:
            self._publish("stopping", {})
        for group in STOP_ORDER:
            stop([self._watched[service].process for service in group if service in self._watched], self.reporter.note)

    def _publish(self, phase: Phase, reasons: Mapping[str, str]) -> None:
        own = psutil.Process()
        write_state(self.data, PlatformState(own.pid, own.create_time(), phase, self.ports, reasons))


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def prepare_data(data: DataFolder, clock: Clock) -> LocalIssuer:
    """Folders, the administrator's copy of the watchlists, keys, fresh tokens and certificates. Keeps what is there."""
    data.logs.mkdir(parents=True, exist_ok=True)
    if not data.watchlists.exists():
        packaged = resources.files("services.shared").joinpath("watchlists.toml")
        with resources.as_file(packaged) as path:
            shutil.copyfile(path, data.watchlists)
    issuer = LocalIssuer.open(data.tokens, clock)
    issuer.write_ready_tokens(watchlist_ids(data))
    renew_certificates(data, clock)
    return issuer


def renew_certificates(data: DataFolder, clock: Clock) -> None:
    """New certificates for every service and for the tools beside them; running services take them up by themselves."""
    LocalAuthority.open(data.certificates, clock).renew(SERVICES, clients=(TOOLS,))


def watchlist_ids(data: DataFolder) -> tuple[str, ...]:
    """Every watchlist of the data's own file. Raises ConfigurationError when that file is wrong."""
    return WatchlistFile(data.watchlists).current().ids


def stop(processes: list[ServiceProcess], note: Callable[[str], None]) -> None:
    """SIGTERM to all at once, SIGKILL to whatever has not ended in time."""
    for process in processes:
        process.send(signal.SIGTERM)
    deadline_s = time.monotonic() + _STOP_TIMEOUT_S
    for process in processes:
        if not process.wait(max(0.0, deadline_s - time.monotonic())):
            note(f"{process.service} did not stop within {_STOP_TIMEOUT_S:g} s and was killed")
            process.send(signal.SIGKILL)
            process.wait(5.0)


def _died_at_start(process: ServiceProcess, code: int, log: str) -> DependencyUnavailable:
    lines = process.last_lines()
    said = "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"
    reason = _own_words(lines)
    return DependencyUnavailable(
        f"{process.service} stopped while starting ({describe_exit(code)}). {reason.get('detail', '')}\n"
        f"The last lines of its log, {log}:\n{said}",
        advice=str(reason.get("advice") or "Mend what the log names and start again."),
    )


def _own_words(lines: list[str]) -> dict[str, object]:
    """What a service that refuses to start says in the last line of its log: `detail` and `advice`."""
    try:
        said = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _not_started(reasons: Mapping[str, str], data: DataFolder) -> DependencyUnavailable:
    waited = "; ".join(f"{service} ({reason})" for service, reason in reasons.items())
    return DependencyUnavailable(
        f"Not ready within {_START_TIMEOUT_S:g} s: {waited}.",
        advice=f"Read the logs in {data.logs}{os.sep}, mend what they name and start again.",
    )
