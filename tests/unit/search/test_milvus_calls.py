"""A Milvus that is gone is told from one that is slow, also behind a balancer that accepts and hangs up."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from services.search.adapters.milvus_calls import MilvusCalls

pytest.importorskip("pymilvus")


@contextmanager
def _listening(does: str) -> Iterator[int]:
    """A port whose connections are told goodbye, told something, or told nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if does == "answers":
                    connection.sendall(b"\x00")
                if does != "hangs up":
                    connection.recv(1)  # until the caller ends it

        server = Thread(target=serve, daemon=True)
        server.start()
        yield int(listener.getsockname()[1])
        server.join(60)


@pytest.mark.parametrize(("does", "is_there"), [("hangs up", False), ("answers", True), ("waits", True)])
def test_who_accepts_and_hangs_up_is_not_there(does: str, is_there: bool) -> None:
    with _listening(does) as port:
        assert _calls(port)._is_there() is is_there


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    assert not _calls(port)._is_there()


def _calls(port: int) -> Any:
    return MilvusCalls(f"http://127.0.0.1:{port}", "", "default", 5.0)
