"""A network that can be cut, held up or slowed: a TCP relay of the loopback interface between a client and a server."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Event, Lock, Thread
from time import sleep
from types import TracebackType

_CHUNK = 64 * 1024
_GIVE_UP_S = 5.0


class TcpProxy:
    """Relays every connection to `host:port`. All calls take effect on connections that are open and on new ones."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = Lock()
        self._flows = Event()
        self._flows.set()
        self._is_cut = self._is_closed = False
        self._delay_s = 0.0
        Thread(target=self._accept, name="tcp-proxy", daemon=True).start()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut(self) -> None:
        """Connections break, and new ones break at once."""
        self._is_cut = True
        self._break_all()

    def stall(self) -> None:
        """Connections stay open and nothing passes, as behind a firewall that drops."""
        self._flows.clear()

    def slow(self, delay_s: float) -> None:
        """Every piece of every answer and question waits for so long."""
        self._delay_s = delay_s

    def heal(self) -> None:
        """As at the beginning; what was held up passes."""
        self._is_cut, self._delay_s = False, 0.0
        self._flows.set()

    def close(self) -> None:
        self._is_closed = True
        self.heal()
        self._listener.close()
        self._break_all()

    def _break_all(self) -> None:
        with self._lock:
            broken, self._open = self._open, set()
        for each in broken:
            _end(each)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                _end(client)
                continue
            try:
                server = socket.create_connection(self._target, timeout=_GIVE_UP_S)
            except OSError:  # nobody listens there: the client sees what it would see without us
                _end(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                Thread(target=self._relay, args=(source, sink), name="tcp-proxy-relay", daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(_CHUNK):
                self._flows.wait()
                if self._delay_s:
                    sleep(self._delay_s)
                sink.sendall(piece)
        except OSError:
            _end(source)  # broken on one side is broken on both
        with self._lock:
            self._open -= {source, sink}
        _end(sink)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
