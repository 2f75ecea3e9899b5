"""A real ingest process beside fake peers, and a custodian who calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.local.deployment import free_ports
from services.local.issuer import LocalIssuer
from services.rpc.clients import LedgerClient
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.clock import SystemClock
from services.shared.ids import new_id
from services.shared.ports.event_log import ReceivedEvent
from tests.integration.ingest.fakes import FakePeers
from tests.support.channels import ready_channel
from tests.support.waiting import wait_until

WATCHLISTS = ("custody", "sex_offenders", "op_liberal")
READY_S = 180.0
END_S = 60.0
SETTLED_S = 120.0
FORM = {
    "watchlist": "custody",
    "owner": "northshire",
    "subject_id": "NS-000001",
    "lawful_basis": "pace_1984_s64a",
    "captured_on": "2026-03-01",
}


@dataclass
class IngestProcess:
    """`python -m services.ingest` on data of its own."""

    root: Path
    peers: FakePeers
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ports = free_ports()["ingest"]
        self.http_port, self.grpc_port = ports.http, ports.grpc
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.issuer = LocalIssuer.open(self.root / "tokens", SystemClock())
        self._process: subprocess.Popen[bytes] | None = None
        self._log = (self.root / "ingest.log").open("ab")

    def start(self) -> None:
        environment = {
            **os.environ,
            "LIKENESS_INGEST__HTTP_PORT": str(self.http_port),
            "LIKENESS_INGEST__GRPC_PORT": str(self.grpc_port),
            "LIKENESS_INGEST__DATABASE__URL": f"sqlite:///{self.root / 'ingest.sqlite'}",
            "LIKENESS_INGEST__EVENTS__PATH": str(self.root / "events.sqlite"),
            "LIKENESS_INGEST__IMAGES__PATH": str(self.root / "images"),
            "LIKENESS_INGEST__LIFE__CERTIFICATE_KEY_PATH": str(self.root / "certificate-key.pem"),
            "LIKENESS_INGEST__TOKENS__JWKS_PATH": str(self.root / "tokens" / "jwks.json"),
            "LIKENESS_INGEST__PEERS__EMBED": f"127.0.0.1:{self.peers.ports['embed']}",
            "LIKENESS_INGEST__PEERS__SEARCH": f"127.0.0.1:{self.peers.ports['search']}",
            "LIKENESS_INGEST__PEERS__AUDIT": f"127.0.0.1:{self.peers.ports['audit']}",
            **self.settings,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.ingest"], env=environment, stderr=self._log, stdout=self._log
        )

    def start_ready(self) -> None:
        self.start()
        wait_until(lambda: self.readiness()[0] == 200, READY_S, lambda: f"ingest to be ready: {self.log()}")

    def readiness(self) -> tuple[int, set[str]]:
        """Status and what is waited for; 0 when nobody answers. AssertionError when it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"ingest ended with {self._process.returncode}: {self.log()}")
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=10)
        except httpx.TransportError:
            return 0, set()
        return answer.status_code, set(answer.json().get("waiting_for", {}))

    def kill(self) -> None:
        """As `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As an operator does; the exit status."""
        return self._end(signal.SIGTERM)

    def close(self) -> None:
        if self._process is not None:
            self.kill()
        self._log.close()

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(timeout=END_S)
        self._process = None
        return status

    def limit_files(self, size_bytes: int) -> None:
        """No file of the process may grow beyond this any more, as on a full disk; -1 lifts it."""
        assert self._process is not None
        psutil.Process(self._process.pid).rlimit(psutil.RLIMIT_FSIZE, (size_bytes, psutil.RLIM_INFINITY))

    def log(self) -> str:
        return (self.root / "ingest.log").read_text("utf-8", "replace")[-4000:]

    def ledger(self) -> LedgerClient:
        return LedgerClient(ready_channel(f"127.0.0.1:{self.grpc_port}"))

    def token(self, role: str = "custodian", watchlists: Sequence[str] = WATCHLISTS, force: str = "northshire") -> str:
        return self.issuer.issue(
            role, watchlists, force=force, person_id=f"{force}-{role}", lifetime=timedelta(hours=1)
        )

    def custodian(self, **claims: Any) -> Custodian:
        return Custodian(self.url, self.token(**claims))

    def events(self) -> list[ReceivedEvent]:
        """Everything that ingest has published."""
        topics = ["reference-enrolled", "enrolment-refused", "reference-withdrawn"]
        log = SqliteEventLog(self.root / "events.sqlite")
        member = log.subscribe([f"likeness.{topic}.v1" for topic in topics], f"test-{new_id()}")
        found = list(member.poll(1_000_000, 0.2))
        member.close()
        log.close()
        return found


class Custodian:
    """Calls the enrolment API with one token."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
        )

    def enrol(self, image: bytes, *, headers: Mapping[str, str] | None = None, **fields: str) -> httpx.Response:
        form = {name: value for name, value in {**FORM, **fields}.items() if value}
        return self.http.post("/v1/enrolments", data=form, files={"image": ("image.jpg", image)}, headers=headers)

    def get(self, enrolment_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/enrolments/{enrolment_id}")
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    def settled(self, enrolment_id: str, *, within_s: float = SETTLED_S) -> dict[str, Any]:
        """The enrolment once it is no longer pending."""
        wait_until(
            lambda: self.get(enrolment_id)["state"] != "accepted", within_s, f"{enrolment_id} to be settled", 0.02
        )
        return self.get(enrolment_id)

    def outcomes(self, enrolment_ids: Sequence[str]) -> dict[str, str]:
        """State by id, of those that are there."""
        found: dict[str, str] = {}
        for start in range(0, len(enrolment_ids), 1000):
            answer = self.http.post(
                "/v1/enrolments/lookup", json={"enrolment_ids": list(enrolment_ids[start : start + 1000])}
            )
            answer.raise_for_status()
            found |= {item["enrolment_id"]: item["state"] for item in answer.json()["enrolments"]}
        return found
