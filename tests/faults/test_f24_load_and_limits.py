"""F24: connections that trickle, messages and uploads over the limit, against running services."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import grpc
import httpx
import pytest

from services.rpc.server import MAX_MESSAGE_BYTES
from tests.integration.search.peers import Peers
from tests.integration.search.process import SearchProcess
from tests.support.fault_report import record

CONNECTIONS = 200
CLOSED_WITHIN_S = 60.0  # 10 s by the clocks of the service; what a busy machine adds
HEAD = b"POST /v1/searches HTTP/1.1\r\nHost: likeness\r\n"


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchProcess]:
    root = tmp_path_factory.mktemp("f24")
    with Peers().running() as peers, SearchProcess(root, peers) as running:
        yield running


@pytest.mark.long
def test_f24_two_hundred_trickling_connections_are_closed_and_others_served(search: SearchProcess) -> None:
    began = time.monotonic()
    body = f"Authorization: Bearer {search.issuer.token()}\r\nContent-Length: 100000\r\n".encode()
    body += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    lorises = [trickling(search.http_port, b"" if number % 2 else body) for number in range(CONNECTIONS)]
    served = httpx.get(f"{search.url}/healthz", timeout=10)
    assert served.status_code == 200
    open_ones = until_closed(lorises, began + CLOSED_WITHIN_S)
    assert open_ones == 0, f"{open_ones} are open still"
    record(
        "F24",
        f"{CONNECTIONS} connections at a byte a second",
        "embedded",
        recovery_s=time.monotonic() - began,
        times=CONNECTIONS,
    )


def test_f24_a_message_over_the_limit_is_refused(search: SearchProcess) -> None:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{search.grpc_port}", options=options) as channel:
        path = "/likeness.v1.Gallery/PutReferences"
        call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\0" * (MAX_MESSAGE_BYTES + 1), timeout=60)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_f24_a_gigabyte_is_refused_before_it_is_read(search: SearchProcess) -> None:
    with socket.create_connection(("127.0.0.1", search.http_port), timeout=60) as connection:
        token = f"Authorization: Bearer {search.issuer.token()}\r\n".encode()
        connection.sendall(HEAD + token + b"Content-Length: 1073741824\r\nContent-Type: multipart/form-data; ")
        connection.sendall(b"boundary=b\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def trickling(port: int, rest: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(HEAD + rest)
    connection.setblocking(False)
    return connection


def until_closed(connections: list[socket.socket], deadline: float) -> int:
    """A byte a second on each until the service closes it; how many are open at the deadline."""
    open_ones = list(connections)
    while open_ones and time.monotonic() < deadline:
        open_ones = [connection for connection in open_ones if goes_on(connection)]
        time.sleep(1.0)
    for connection in connections:
        connection.close()
    return len(open_ones)


def goes_on(connection: socket.socket) -> bool:
    """Send one more byte; whether the service still holds on to the connection."""
    try:
        connection.sendall(b"x")
        while connection.recv(4096):
            pass  # an answer, before it closes
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
