"""The guard in front of every route, driven by hand-made ASGI messages and by a real server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI, Request, UploadFile
from prometheus_client import CollectorRegistry

from services.shared import http_guard
from services.shared.errors import Forbidden
from services.shared.http import create_app
from services.shared.telemetry import Metrics
from tests.support.waiting import wait_until

LIMIT = 100_000


def app_with_routes() -> FastAPI:
    app = create_app("test", Metrics(CollectorRegistry()), dict, max_body_bytes=LIMIT)

    def refuse() -> None:
        raise Forbidden("not you", advice="ask")

    @app.post("/raw")
    async def raw(request: Request) -> dict[str, int]:
        return {"size": len(await request.body())}

    @app.post("/form")
    def form(image: UploadFile) -> dict[str, int | None]:
        return {"size": image.size}

    @app.post("/refused", dependencies=[Depends(refuse)])
    async def refused(request: Request) -> dict[str, int]:
        return {"size": len(await request.body())}

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("boom")

    return app


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app_with_routes(), log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 60, "the server", 0.01)
    yield listening.getsockname()
    server.should_exit = True
    thread.join(60)


def answer_to(address: tuple[str, int], request: bytes, *, then: bytes = b"", pause_s: float = 0.0) -> str:
    """The whole answer to a request sent by hand; empty bytes mean that the server closed."""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(request)
        if then:
            time.sleep(pause_s)
            connection.sendall(then)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received.decode()


def head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def test_within_the_limit_all_comes_through(address: tuple[str, int]) -> None:
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", timeout=60) as client:
        assert client.post("/raw", content=b"x" * LIMIT).json() == {"size": LIMIT}
        assert client.post("/form", files={"image": b"x" * 5000}).json() == {"size": 5000}


@pytest.mark.parametrize("path", ["/raw", "/form"])
def test_an_announced_gigabyte_is_refused_before_a_byte_of_it_is_sent(address: tuple[str, int], path: str) -> None:
    announced = head(path, f"Content-Length: {2**30}", "Content-Type: multipart/form-data; boundary=b")
    answer = answer_to(address, announced)
    assert answer.startswith("HTTP/1.1 413 ")
    assert '"code":"payload_too_large"' in answer
    assert "application/problem+json" in answer
    assert "connection: close" in answer.lower()


@pytest.mark.parametrize("path", ["/raw", "/form"])
def test_a_body_without_a_length_is_cut_at_the_limit(address: tuple[str, int], path: str) -> None:
    begin = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'.ljust(60_000, b"x")
    chunks = [b"%x\r\n%s\r\n" % (len(content), content) for content in (begin, b"x" * 60_000)]
    form = head(path, "Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=b")
    answer = answer_to(address, form + chunks[0], then=chunks[1], pause_s=0.05)
    assert answer.startswith("HTTP/1.1 413 ")


def test_a_client_that_sends_everything_first_still_reads_the_refusal(address: tuple[str, int]) -> None:
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", timeout=60) as client:
        answer = client.post("/raw", content=b"x" * (LIMIT * 50))
    assert answer.status_code == 413


def test_a_refusal_before_the_body_stands_whatever_the_body_is(address: tuple[str, int]) -> None:
    answer = answer_to(address, head("/refused", f"Content-Length: {LIMIT}", "Connection: close"))
    assert answer.startswith("HTTP/1.1 403 ")


def test_a_trickling_body_is_given_up(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_guard, "BODY_GRACE_S", 0.3)
    answer = answer_to(address, head("/raw", "Content-Length: 1000") + b"x")
    assert answer.startswith("HTTP/1.1 408 ")
    assert '"code":"request_timed_out"' in answer


@pytest.mark.parametrize("path", ["/healthz", "/no-such-page", "/broken", "/raw"])
def test_every_answer_carries_the_headers(address: tuple[str, int], path: str) -> None:
    answer = httpx.get(f"http://{address[0]}:{address[1]}{path}", timeout=60)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    if path != "/healthz":
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["advice"]


def test_the_pace_grows_with_what_came() -> None:
    """A large body on a slow but steady line is let through."""
    total = 40

    async def run() -> int:
        sent = 0
        size = 0

        async def receive() -> dict[str, Any]:
            nonlocal sent
            sent += 1
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"x" * 1024, "more_body": sent < total}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal size
            while True:
                message = await receive()
                size += len(message["body"])
                if not message["more_body"]:
                    return

        async def send(_message: Any) -> None:
            return None

        await http_guard.HttpGuard(app, LIMIT)({"type": "http", "headers": []}, receive, send)
        return size

    assert asyncio.run(run()) == total * 1024
