"""A real search service beside fake peers, and an operator who calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, Self

import httpx
import uvicorn
from prometheus_client import CollectorRegistry

from services.local.ports import reserve_ports
from services.rpc.clients import GalleryClient
from services.search.bootstrap import build
from services.search.settings import SearchSettings
from services.shared.telemetry import Metrics
from tests.integration.search.peers import Peers
from tests.support.channels import ready_channel
from tests.support.waiting import wait_until
from tests.unit.shared.issuer import Issuer

READY_S = 180.0
END_S = 60.0
WATCHLISTS = ("custody", "sex_offenders", "op_liberal")
LIMITS = ("RATE_LIMITS", "SEARCH_RATE_LIMITS")
FORM: Mapping[str, Any] = {
    "case_reference": "NS/2026/004711",
    "purpose": "prevention_and_detection",
    "offence": "burglary",
    "source": "cctv",
    "watchlists": ["custody"],
}


def free_ports(count: int) -> list[int]:
    return reserve_ports("127.0.0.1", count)


class RunningSearch:
    """What a test does with a search service, however it runs. A context manager that starts and ends it."""

    def __init__(self, root: Path, peers: Peers, **settings: str) -> None:
        self.root = root
        self.issuer = Issuer(root)
        self.http_port, self.grpc_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._settings = {
            "HTTP_PORT": str(self.http_port),
            "GRPC_PORT": str(self.grpc_port),
            "DATABASE__URL": f"sqlite:///{root / 'search.sqlite'}",
            "PROBES__PATH": str(root / "probes"),
            "TOKENS__JWKS_PATH": str(self.issuer.settings.jwks_path),
            # A test asks for more in a second than a person in a minute; the limits have tests of their own.
            **{f"{name}__{of}_PER_MINUTE": "0" for name in LIMITS for of in ("PERSON", "FORCE")},
            **{f"PEERS__{name.upper()}": f"127.0.0.1:{port}" for name, port in peers.ports.items()},
            **settings,
        }

    def __enter__(self) -> Self:
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def start(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """However, and also when it has ended already."""
        raise NotImplementedError

    def trouble(self) -> str:
        """What it says when it does not become ready."""
        return ""

    def require_running(self) -> None:
        """AssertionError when it has ended by itself."""

    def wait_ready(self) -> None:
        wait_until(lambda: self._answers("/readyz"), READY_S, lambda: f"search to be ready: {self.trouble()}", 0.02)

    def wait_alive(self) -> None:
        wait_until(lambda: self._answers("/healthz"), READY_S, lambda: f"search to answer: {self.trouble()}", 0.02)

    def _answers(self, path: str) -> bool:
        self.require_running()
        try:
            return httpx.get(self.url + path, timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def gallery(self) -> GalleryClient:
        return GalleryClient(ready_channel(f"127.0.0.1:{self.grpc_port}"))

    def operator(self, **claims: Any) -> Operator:
        return Operator(self.url, self.issuer.token(**claims))

    def metric(self, name: str) -> float:
        """The value of one series, as in `likeness_search_requests_total{outcome="done"}`."""
        for line in httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        return 0.0


class SearchProcess(RunningSearch):
    """`python -m services.search`, as in operation; can be killed and started again on its data."""

    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, **{f"LIKENESS_SEARCH__{name}": value for name, value in self._settings.items()}}
        with (self.root / "search.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.search"], env=environment, stdout=log, stderr=log
            )

    def end(self) -> None:
        if self._process is not None:
            self.kill()

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As `kill -9` does."""
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """As an operator does; the exit status."""
        return self._signal(signal.SIGTERM)

    def trouble(self) -> str:
        return (self.root / "search.log").read_text("utf-8", "replace")[-4000:]

    def require_running(self) -> None:
        status = None if self._process is None else self._process.poll()
        assert status is None, f"search ended with {status}: {self.trouble()}"

    def _signal(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(timeout=END_S)
        self._process = None
        return status


class SearchThread(RunningSearch):
    """The same service on real sockets in a thread of the test: starts in a blink, cannot be killed."""

    def start(self) -> None:
        nested: dict[str, Any] = {}
        for name, value in self._settings.items():
            *groups, last = name.lower().split("__")
            place = nested
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = value
        self._service = build(SearchSettings(**nested), Metrics(CollectorRegistry()))
        config = uvicorn.Config(self._service.app, port=self.http_port, log_level="critical", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run, name="search-http", daemon=True)
        self._service.start()
        self._thread.start()

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join(END_S)
        self._service.stop()


class Operator:
    """Calls the search API with one token."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def search(
        self,
        image: bytes | None,
        *,
        headers: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        **fields: Any,
    ) -> httpx.Response:
        """`fields` are changes to FORM."""
        form = {name: value for name, value in {**FORM, **fields}.items() if name not in without}
        files = {"image": ("probe.jpg", image, "image/jpeg")} if image is not None else {"none": b""}
        return self.http.post("/v1/searches", data=form, files=files, headers=headers)

    def answer(self, image: bytes, **fields: Any) -> dict[str, Any]:
        response = self.search(image, **fields)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def see(self, search_id: str) -> httpx.Response:
        return self.http.get(f"/v1/searches/{search_id}")


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem of a response, which must have that status and code and say what to do."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body: dict[str, Any] = json.loads(response.content)
    assert (response.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["detail"]
    assert body["advice"]
    return body
