"""The platform as the demonstration uses it: the public REST API with ready tokens, and the synthetic fill."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from services.local.certificates import tls_settings
from services.local.demo.plan import OWNER, Fill, Probe, Subject
from services.local.deployment import HOST, DataFolder
from services.local.state import PlatformState
from services.rpc.access import TOOLS
from services.rpc.clients import LedgerClient, open_channel
from services.rpc.v1 import common_pb2, ingest_pb2
from services.shared.errors import DependencyUnavailable

_SETTLE_TIMEOUT_S = 60.0
CASE = "DEMO/2026/0001"


class DemoClient:
    """One custodian and one operator at a running platform. Use it as a context manager."""

    def __init__(self, data: DataFolder, state: PlatformState) -> None:
        self._custodian = _client(state.ports["ingest"].http, data.tokens / "custodian.token")
        self._operator = _client(state.ports["search"].http, data.tokens / "operator.token")
        address = f"{HOST}:{state.ports['ingest'].grpc}"
        self._channel = open_channel(address, tls_settings(data.certificates, TOOLS), "ingest")
        self._ledger = LedgerClient(self._channel)

    def __enter__(self) -> DemoClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._custodian.close()
        self._operator.close()
        self._channel.close()

    def enrol(self, subject: Subject, picture: bytes) -> dict[str, Any]:
        """Enrol a subject and wait for the outcome. Enrolling the same again changes nothing and is quick."""
        fields = {
            "watchlist": subject.watchlist,
            "owner": OWNER,
            "subject_id": subject.subject_id,
            "lawful_basis": subject.lawful_basis,
            "captured_on": subject.captured_on,
        }
        answer = self._custodian.post("/v1/enrolments", data=fields, files={"image": (subject.picture, picture)})
        path = f"/v1/enrolments/{_body(answer)['enrolment_id']}"
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        while (found := _body(self._custodian.get(path)))["state"] == "accepted":
            if time.monotonic() > deadline:
                raise DependencyUnavailable(f"{subject.subject_id} was accepted but is not enrolled yet.")
            time.sleep(0.1)
        return found

    def fill(self, fill: Fill) -> ingest_pb2.FillSyntheticResponse:
        """Add labelled synthetic references up to the count; those that are there already count."""
        return self._ledger.fill_synthetic(
            ingest_pb2.FillSyntheticRequest(
                watchlist_id=fill.watchlist,
                owner=fill.owner,
                until_count=fill.until_count,
                seed=fill.seed,
                actor=common_pb2.Actor(person_id="demo", force=fill.owner, roles=["administrator"]),
            )
        )

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """(enrolled, of them synthetic) by watchlist."""
        return {entry.watchlist_id: (entry.enrolled, entry.synthetic) for entry in self._ledger.count().watchlists}

    def search(
        self, probe: Probe, picture: bytes, watchlists: list[str], mode: str = "investigation"
    ) -> httpx.Response:
        """Search all watchlists for a probe; the answer as it came."""
        fields: dict[str, Any] = {
            "case_reference": CASE,
            "purpose": "prevention_and_detection",
            "offence": "demonstration",
            "source": "other",
            "watchlists": watchlists,
            "mode": mode,
            "max_candidates": 5,
        }
        if probe.face is not None:
            fields["face"] = probe.face
        return self._operator.post("/v1/searches", data=fields, files={"image": (probe.picture, picture)})


def _client(port: int, token: Path) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token.read_text('utf-8')}"}
    return httpx.Client(base_url=f"http://{HOST}:{port}", headers=headers, timeout=30.0, trust_env=False)


def _body(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    if answer.status_code not in {200, 202}:
        raise DependencyUnavailable(f"{body.get('detail', answer.text)}", advice=str(body.get("advice", "")))
    return body


def timed(call: Callable[[], httpx.Response]) -> tuple[dict[str, Any], float]:
    """The answer's body and the milliseconds that the caller waited for it. Raises DependencyUnavailable."""
    begun = time.perf_counter()
    answer = call()
    elapsed_ms = (time.perf_counter() - begun) * 1000
    return _body(answer), elapsed_ms
