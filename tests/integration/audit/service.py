"""A real audit process and what a test needs around it: free ports, tokens, a recorder, faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import httpx
import jwt
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from services.local.ports import reserve_ports
from services.rpc.auditing import AuditRecorder
from services.rpc.clients import AuditClient, open_channel
from services.rpc.v1 import audit_pb2
from services.shared.clock import SystemClock
from services.shared.tokens import Principal
from tests.support.channels import ready_channel

OPERATOR = Principal("operator-17", "northshire", frozenset({"operator"}), frozenset({"custody"}))
START_S = 180.0  # two seconds where nothing else runs
END_S = 60.0


def free_port() -> int:
    return reserve_ports("127.0.0.1", 1)[0]


class TokenIssuer:
    """A local issuer: its JWKS file and tokens for any roles."""

    def __init__(self, folder: Path) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.jwks_path = folder / "jwks.json"
        entry = json.loads(OKPAlgorithm.to_jwk(self._key.public_key()))
        self.jwks_path.write_text(json.dumps({"keys": [{**entry, "kid": "test", "alg": "EdDSA", "use": "sig"}]}))

    def headers(self, *roles: str) -> dict[str, str]:
        now = int(time.time())
        claims = {
            "iss": "likeness-local",
            "aud": "likeness",
            "sub": f"{roles[0]}-1",
            "iat": now,
            "exp": now + 600,
            "force": "northshire",
            "roles": list(roles),
            "watchlists": [],
        }
        token = jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": "test"})
        return {"Authorization": f"Bearer {token}"}


class AuditProcess:
    """`python -m services.audit` on a folder. Starting it again continues the log that is there."""

    def __init__(self, folder: Path, *, database_url: str | None = None, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store_path = folder / "audit.sqlite"
        self.witness_path = folder / "witness"
        self.key_path = folder / "signing-key.pem"
        self.tokens = TokenIssuer(folder)
        self.http_port, self.grpc_port = free_port(), free_port()
        self._environment = {
            "LIKENESS_AUDIT__HTTP_PORT": str(self.http_port),
            "LIKENESS_AUDIT__GRPC_PORT": str(self.grpc_port),
            "LIKENESS_AUDIT__DATABASE__URL": database_url or f"sqlite:///{self.store_path}",
            "LIKENESS_AUDIT__CHECKPOINTS__SIGNING_KEY_PATH": str(self.key_path),
            "LIKENESS_AUDIT__CHECKPOINTS__WITNESS_PATH": str(self.witness_path),
            "LIKENESS_AUDIT__TOKENS__JWKS_PATH": str(self.tokens.jwks_path),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def log_text(self) -> str:
        return (self.folder / "audit.log").read_text("utf-8")

    def spawn(self) -> subprocess.Popen[bytes]:
        with (self.folder / "audit.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.audit"],
                env={**os.environ, **self._environment},
                stdout=output,
                stderr=output,
            )
        return self._process

    def start(self) -> AuditProcess:
        process = self.spawn()
        self.wait_until_ready(process)
        return self

    def wait_until_ready(self, process: subprocess.Popen[bytes], within_s: float = START_S) -> None:
        deadline = time.monotonic() + within_s
        while not self.is_ready():
            assert process.poll() is None, f"audit ended with {process.returncode}: {self.log_text}"
            assert time.monotonic() < deadline, f"audit is not ready: {self.readiness()} {self.log_text}"
            time.sleep(0.05)
        ready_channel(self.address).close()  # what this process knows of an earlier start is out of date

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=10.0).status_code == 200
        except httpx.HTTPError:
            return False

    def readiness(self) -> Mapping[str, object]:
        try:
            answer: dict[str, object] = httpx.get(f"{self.url}/readyz", timeout=10.0).json()
        except httpx.HTTPError as error:
            return {"error": str(error)}
        return answer

    def exit_code(self, within_s: float = START_S) -> int:
        """Run until it ends by itself: for starts that are refused."""
        return self.spawn().wait(within_s)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(END_S)

    def fill_disk(self) -> None:
        """No file of the process may grow any more: writes fail as they do on a full disk."""
        largest = max((path.stat().st_size for path in self.folder.glob("audit.sqlite*")), default=0)
        self._limit_files(min(largest, 4096))

    def free_disk(self) -> None:
        self._limit_files(-1)

    def _limit_files(self, size: int) -> None:
        assert self._process is not None
        # The soft limit alone, so that it can be lifted again.
        psutil.Process(self._process.pid).rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def get(self, path: str, *roles: str, **parameters: str | int) -> httpx.Response:
        headers = self.tokens.headers(*roles) if roles else {}
        return httpx.get(f"{self.url}{path}", headers=headers, params=parameters or None, timeout=60.0)

    def post(self, path: str, role: str, **wanted: str) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", headers=self.tokens.headers(role), json=wanted, timeout=60.0)

    def approve_export(self, recipient: str, role: str = "supervisor") -> str:
        """The id of an approval to export the log."""
        made = self.post("/v1/audit/export-approvals", role, recipient=recipient, reason="Inspection.")
        assert made.status_code == 201, made.text
        return str(made.json()["approval_id"])

    def export(self, recipient: str = "The commissioner") -> bytes:
        answer = self.get("/v1/audit/export", "auditor", approval=self.approve_export(recipient))
        assert answer.status_code == 200, answer.text
        return answer.content


def recorder_to(address: str) -> AuditRecorder:
    return AuditRecorder(AuditClient(open_channel(address)), "search", SystemClock())


def record_search(
    recorder: AuditRecorder,
    number: int,
    phase: audit_pb2.Phase.ValueType = audit_pb2.INTENT,
    *,
    entry_id: str | None = None,
    objects: Sequence[str] = ("watchlist:custody",),
    recipients: Iterable[str] = (),
) -> audit_pb2.AppendResponse:
    return recorder.record(
        audit_pb2.CONSULTATION,
        phase,
        "search",
        f"search-{number}",
        OPERATOR,
        purpose="crime_investigation",
        case_reference=f"NS/2026/{number:06d}",
        objects=objects,
        recipients=tuple(recipients),
        details={"number": str(number), "note": 'Zoë said "no"\n'},
        entry_id=entry_id,
    )
