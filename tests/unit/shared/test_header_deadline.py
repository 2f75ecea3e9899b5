"""Connections that never come to a request, against a real server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from services.shared import header_deadline
from services.shared.header_deadline import HeaderDeadlineProtocol
from tests.support.waiting import wait_until
from tests.unit.shared.test_http_guard import app_with_routes

HEAD_S = 1.0
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(header_deadline, "HEAD_S", HEAD_S)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app_with_routes(), http=HeaderDeadlineProtocol, log_level="critical", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 60, "the server", 0.01)
    yield listening.getsockname()
    server.should_exit = True
    thread.join(60)


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


@pytest.mark.parametrize("said", [b"", HEAD], ids=["nothing", "half a head"])
def test_who_never_finishes_a_head_is_cut_off(address: tuple[str, int], said: bytes) -> None:
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(said)
        assert until_closed(connection) == b""


def test_nor_after_a_request_that_was_whole(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(HEAD + b"\r\n" + HEAD)
        assert until_closed(connection).startswith(b"HTTP/1.1 200 ")


def test_nor_who_is_refused_and_goes_on_with_the_body(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx")
        assert connection.recv(100).startswith(b"HTTP/1.1 403 ")
        deadline = time.monotonic() + 60
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                connection.sendall(b"x")
                time.sleep(0.1)


def test_a_body_has_its_own_pace(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(b"POST /raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nx")
        time.sleep(1.5 * HEAD_S)
        connection.sendall(b"y")
        assert b'{"size":2}' in until_closed(connection)


ENDLESS = {
    "a header": HEAD + b"X: ",
    "headers": HEAD,
    "an address": b"GET /",
    "trailers": b"POST /raw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_an_endless_head_is_cut_off_by_its_size(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(header_deadline, "HEAD_S", 600.0)
    line = b"X-Long: " + b"a" * 1014 + b"\r\n" if what == "headers" else b"a" * 1024
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(ENDLESS[what])
        with pytest.raises(OSError):
            # A thousand times the limit: whoever takes it all has none.
            for _ in range(1000):
                connection.sendall(line * 64)


def test_a_large_body_after_a_small_head_is_no_head(address: tuple[str, int]) -> None:
    size = 10 * header_deadline.MAX_HEAD_BYTES
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        assert connection.recv(100).startswith(b"HTTP/1.1 403 ")
        connection.sendall(b"x" * size)
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert b"HTTP/1.1 200 " in until_closed(connection)
