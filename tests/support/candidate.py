"""A second embed beside a platform's own, as a model migration has it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from types import TracebackType

from services.local.deployment import HOST, ServicePorts, environment
from services.local.ports import reserve_ports
from services.local.process import ServiceProcess, describe_exit
from services.local.readiness import waiting_for
from tests.support.platform import READY_TIMEOUT_S, STOP_TIMEOUT_S, Platform
from tests.support.waiting import wait_until


def candidate_ports() -> ServicePorts:
    """Two ports that are free now."""
    return ServicePorts(*reserve_ports(HOST, 2))


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
            wait_until(self._is_ready, READY_TIMEOUT_S, "the candidate's embed to be ready")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        code = self._process.exit_code()
        if code is not None:
            lines = "\n".join(self._process.last_lines(30))
            raise AssertionError(f"the candidate's embed ended ({describe_exit(code)}):\n{lines}")
        return not waiting_for(self._ports.http)

    def stop(self) -> None:
        if self._process.is_running():
            self._process.send(signal.SIGTERM)
            assert self._process.wait(STOP_TIMEOUT_S), "the candidate's embed did not end"
