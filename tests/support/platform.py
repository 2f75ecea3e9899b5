"""A real platform for tests: every service as its own process, on free ports, on data of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType

import grpc
import httpx

from services.local.certificates import tls_settings
from services.local.deployment import HOST, SERVICES, STOP_ORDER, DataFolder, ServicePorts, environment, free_ports
from services.local.issuer import DEVELOPMENT_FORCE, LocalIssuer
from services.local.process import ServiceProcess, describe_exit
from services.local.readiness import waiting_for
from services.local.supervisor import prepare_data, watchlist_ids
from services.rpc.access import TOOLS
from services.shared.clock import SystemClock
from services.shared.settings import TlsSettings
from tests.support.channels import ready_channel
from tests.support.waiting import wait_until

# A service that ends is noticed at once; one that only waits for its turn on a busy machine has this long.
READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0


class Platform:
    """The services of one data folder, each a process that the test starts, kills and restarts by name.

    Nothing is restarted behind the test's back: `likeness up` does that, and has tests of its own. `settings` are
    environment variables that stand before the local defaults (LIKENESS_SEARCH__…), `services` the ones to run.
    Use it as a context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        root: Path,
        *,
        services: Sequence[str] = SERVICES,
        settings: Mapping[str, str] | None = None,
        allow_synthetic: bool = True,
        mutual_tls: bool = True,
    ) -> None:
        self.data = DataFolder(root)
        self.ports: dict[str, ServicePorts] = free_ports()
        self._settings = dict(settings or {})
        self._allow_synthetic = allow_synthetic
        self._mutual_tls = mutual_tls
        self._services = tuple(services)
        self._processes: dict[str, ServiceProcess] = {}
        self._issuer: LocalIssuer | None = None

    def __enter__(self) -> Platform:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all services and wait until every one is ready; also after `stop`, on the same data and ports."""
        self._issuer = prepare_data(self.data, SystemClock())
        try:
            for service in self._services:
                self.launch(service)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def launch(self, service: str, **settings: str) -> None:
        """Start one service without waiting for it. `settings` are further environment variables."""
        process = ServiceProcess(service, self._environment(service, self.ports, settings), self.data.log_of(service))
        process.start()
        self._processes[service] = process

    @contextmanager
    def beside(self, service: str, **settings: str) -> Iterator[ServicePorts]:
        """A second process of a service on ports of its own, once it is ready; it ends with the block."""
        ports = {**self.ports, **free_ports([service])}
        log = self.data.log_of(f"{service}-beside")
        process = ServiceProcess(service, self._environment(service, ports, settings), log)
        process.start()
        port = ports[service].http
        try:
            wait_until(
                lambda: _is_ready(process, port),
                READY_TIMEOUT_S,
                lambda: f"a second {service} to be ready: {waiting_for(port)}",
            )
            yield ports[service]
        finally:
            process.send(signal.SIGTERM)
            if not process.wait(STOP_TIMEOUT_S):
                process.send(signal.SIGKILL)
                process.wait(STOP_TIMEOUT_S)

    def _environment(
        self, service: str, ports: Mapping[str, ServicePorts], settings: Mapping[str, str]
    ) -> Mapping[str, str]:
        return environment(
            service,
            self.data,
            ports,
            {**os.environ, **self._settings, **settings},
            allow_synthetic=self._allow_synthetic,
            mutual_tls=self._mutual_tls,
        )

    def wait_ready(self, *services: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until these services (all when none is named) say that they are ready."""
        for service in services or self._services:
            wait_until(partial(self._is_ready, service), timeout_s, partial(self._describe, service))

    def _is_ready(self, service: str) -> bool:
        return _is_ready(self._processes[service], self.ports[service].http)

    def _describe(self, service: str) -> str:
        lines = "\n".join(self._processes[service].last_lines(10))
        return f"{service} to be ready: {waiting_for(self.ports[service].http)}\n{lines}"

    def process(self, service: str) -> ServiceProcess:
        return self._processes[service]

    def kill(self, service: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; with SIGKILL and SIGTERM, return when the process has ended."""
        self._processes[service].send(number)
        if number in {signal.SIGKILL, signal.SIGTERM}:
            assert self._processes[service].wait(STOP_TIMEOUT_S), f"{service} did not end after {number.name}"

    def restart(self, service: str, **settings: str) -> None:
        """Start a service again and wait until it is ready; stops it first when it runs."""
        if self._processes[service].is_running():
            self.kill(service, signal.SIGTERM)
        self.launch(service, **settings)
        self.wait_ready(service)

    def stop(self) -> None:
        """End every service in order; a service that needs SIGKILL to end is an error of the test."""
        stubborn: list[str] = []
        for group in STOP_ORDER:
            ending = [self._processes[service] for service in group if service in self._processes]
            for process in ending:
                process.send(signal.SIGTERM)
                process.send(signal.SIGCONT)  # a stopped process could not end
            for process in ending:
                if not process.wait(STOP_TIMEOUT_S):
                    process.send(signal.SIGKILL)
                    process.wait(STOP_TIMEOUT_S)
                    stubborn.append(process.service)
        assert not stubborn, f"did not stop on SIGTERM: {', '.join(stubborn)}"

    def url(self, service: str, path: str = "") -> str:
        return f"http://{HOST}:{self.ports[service].http}{path}"

    def token(
        self,
        role: str,
        *,
        force: str = DEVELOPMENT_FORCE,
        watchlists: Sequence[str] | None = None,
        person_id: str = "",
        lifetime: timedelta = timedelta(hours=1),
    ) -> str:
        """A token of the platform's issuer; all watchlists when none are given."""
        assert self._issuer is not None, "start the platform first"
        permitted = watchlist_ids(self.data) if watchlists is None else watchlists
        return self._issuer.issue(
            role, permitted, force=force, person_id=person_id or f"test-{role}", lifetime=lifetime
        )

    def client(
        self,
        service: str,
        role: str,
        *,
        force: str = DEVELOPMENT_FORCE,
        watchlists: Sequence[str] | None = None,
        timeout_s: float = 60.0,
    ) -> httpx.Client:
        """An HTTP client of a service that sends a token of that role. Close it, or use it as a context manager."""
        token = self.token(role, force=force, watchlists=watchlists)
        return httpx.Client(
            base_url=self.url(service),
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            trust_env=False,
        )

    def channel(self, service: str, caller: str = TOOLS) -> grpc.Channel:
        """A gRPC channel to a service that runs, with the certificate of `caller`. Close it, or use it in `with`."""
        return ready_channel(f"{HOST}:{self.ports[service].grpc}", self.tls(caller), service)

    def tls(self, caller: str) -> TlsSettings | None:
        """The certificate of a service of this platform; None where it runs without."""
        return tls_settings(self.data.certificates, caller) if self._mutual_tls else None

    def log(self, service: str) -> str:
        return self.data.log_of(service).read_text("utf-8", "replace")


def _is_ready(process: ServiceProcess, port: int) -> bool:
    """AssertionError with its last words when it has ended."""
    code = process.exit_code()
    if code is not None:
        lines = "\n".join(process.last_lines(30))
        raise AssertionError(f"{process.service} ended ({describe_exit(code)}):\n{lines}")
    return not waiting_for(port)
