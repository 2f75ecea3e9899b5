"""A second embed beside a platform's own, as a model migration has it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from types import TracebackType

from services.local.deployment import HOST, ServicePorts, environment
from services.local.process import ServiceProcess
from services.local.readiness import waiting_for
from tests.support.platform import READY_TIMEOUT_S, Platform
from tests.support.waiting import wait_until


def candidate_ports() -> ServicePorts:
    """Two ports that are free now."""
    held = [socket.create_server((HOST, 0)) for _ in range(2)]
    numbers = [int(opened.getsockname()[1]) for opened in held]
    for opened in held:
        opened.close()
    return ServicePorts(*numbers)


def knows_candidate(ports: ServicePorts) -> dict[str, str]:
    """Settings of a platform that looks for a candidate there; nothing needs to listen yet."""
    address = f"{HOST}:{ports.grpc}"
    return {"LIKENESS_INGEST__CANDIDATE_EMBED": address, "LIKENESS_SEARCH__CANDIDATE_EMBED": address}


class CandidateEmbed:
    """An embed process with a model of its own. Use it as a context manager."""

    def __init__(self, platform: Platform, ports: ServicePorts, settings: Mapping[str, str]) -> None:
        variables = environment(
            "embed", platform.data, {**platform.ports, "embed": ports}, {**os.environ, **settings}, mutual_tls=True
        )
        self._ports = ports
        self._process = ServiceProcess("embed", variables, platform.data.logs / "embed-candidate.log")

    def __enter__(self) -> CandidateEmbed:
        self._process.start()
        try:
            wait_until(lambda: not waiting_for(self._ports.http), READY_TIMEOUT_S, "the candidate's embed to be ready")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process.is_running():
            self._process.send(signal.SIGTERM)
            assert self._process.wait(20.0), "the candidate's embed did not end"
