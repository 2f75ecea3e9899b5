"""What an attacker brings: a server of his own, and a look at whom the services really talk to."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

import psutil

from services.local.deployment import SERVICES
from tests.support.platform import Platform


class Listener:
    """Counts the connections that anybody makes to it."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(60)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()


def _connected_to(process: psutil.Process, own: set[int]) -> list[str]:
    return [
        f"{entry.raddr.ip}:{entry.raddr.port}"
        for entry in process.net_connections("inet")
        if entry.raddr and entry.laddr.port not in own and entry.raddr.port not in own
    ]


def foreign_connections(platform: Platform) -> list[str]:
    """Where the services and their workers are connected to beyond the platform's own ports and its callers here."""
    own = {number for pair in platform.ports.values() for number in (pair.http, pair.grpc)}
    found = []
    for service in SERVICES:
        pid = platform.process(service).pid
        assert pid is not None
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            # A worker may end meanwhile; it is connected to nobody then.
            with suppress(psutil.NoSuchProcess):
                found += [f"{service} -> {each}" for each in _connected_to(process, own)]
    return found
