"""Messages between this process and a worker: JSON with file descriptors beside it, over a local stream socket."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Sequence
from time import monotonic
from typing import Any

import orjson

_HEADER = struct.Struct("<I")
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # a worker that decodes untrusted bytes cannot make this process read for ever


class ChannelClosed(Exception):
    """The other side is gone, or says something that is no message."""


class ChannelTimeout(Exception):
    """No whole message within the time."""


class Channel:
    """One end. Not safe for two threads that both send, or both receive."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def from_descriptor(cls, descriptor: int) -> Channel:
        return cls(socket.socket(fileno=descriptor))

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Raises ChannelClosed."""
        body = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
        data = _HEADER.pack(len(body)) + body
        try:
            sent = socket.send_fds(self._socket, [data], list(descriptors)) if descriptors else 0
            if sent < len(data):
                self._socket.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout_s: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next message and the descriptors that came with it. Raises ChannelClosed, ChannelTimeout."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        try:
            self._wait(deadline)
            head, descriptors, _, _ = socket.recv_fds(self._socket, _HEADER.size, 8)
            head += self._read(_HEADER.size - len(head), deadline)
            (size,) = _HEADER.unpack(head)
            if size > _MAX_MESSAGE_BYTES:
                raise ChannelClosed(f"message of {size} bytes")
            message = orjson.loads(self._read(size, deadline))
        except (OSError, orjson.JSONDecodeError, struct.error) as error:
            raise ChannelClosed(str(error)) from error
        if not isinstance(message, dict):
            raise ChannelClosed("not a message")
        return message, descriptors

    def has_message(self) -> bool:
        """Whether something can be read now."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        """Also ends a `receive` that waits in another thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._socket.close()
            return
        self._socket.close()

    def _read(self, size: int, deadline: float | None) -> bytes:
        if size <= 0:
            return b""
        buffer = bytearray(size)
        view, done = memoryview(buffer), 0
        while done < size:
            self._wait(deadline)
            count = self._socket.recv_into(view[done:])
            if count == 0:
                raise ChannelClosed("closed")
            done += count
        return bytes(buffer)

    def _wait(self, deadline: float | None) -> None:
        if deadline is None:
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(max(0.0, deadline - monotonic()) * 1000):
            raise ChannelTimeout


def channel_pair() -> tuple[Channel, socket.socket]:
    """This process's end, and the one to hand to a worker."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), theirs
