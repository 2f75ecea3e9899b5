"""Messages between this process and a worker: JSON, with file descriptors beside it, over a local stream socket."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Sequence
from time import monotonic
from typing import Any

import orjson

_HEADER = struct.Struct("<I")
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# Read at once where no descriptor can come between two messages: an ordinary message is one call of the kernel.
_AHEAD_BYTES = 4096
_PIECE_BYTES = 256 * 1024


class ChannelClosed(Exception):
    """The other side is gone, stopped in the middle of a message, or says something that is none."""


class ChannelTimeout(Exception):
    """No message began within the time."""


class Channel:
    """One end. Not safe for two threads that both send, or both receive.

    `max_message_bytes` and `max_descriptors` bound what the other side can make this one take; descriptors beyond are
    dropped by the kernel.
    """

    def __init__(
        self, end: socket.socket, *, max_message_bytes: int = MAX_MESSAGE_BYTES, max_descriptors: int = 0
    ) -> None:
        self._socket = end
        self._max_message_bytes = max_message_bytes
        self._max_descriptors = max_descriptors
        self._ahead = bytearray()
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    @classmethod
    def from_descriptor(cls, descriptor: int, *, max_descriptors: int = 0) -> Channel:
        return cls(socket.socket(fileno=descriptor), max_descriptors=max_descriptors)

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
        """The next message and the descriptors that came with it. A message that has begun gets the same time again.

        Raises ChannelClosed, ChannelTimeout.
        """
        try:
            if not self._ahead and timeout_s is not None and not self._is_readable(timeout_s):
                raise ChannelTimeout
            deadline = None if timeout_s is None else monotonic() + timeout_s
            descriptors = self._begin()
            (size,) = _HEADER.unpack(self._take(_HEADER.size, deadline))
            if size > self._max_message_bytes:
                raise ChannelClosed(f"message of {size} bytes")
            message = orjson.loads(self._take(size, deadline))
        except (OSError, ValueError, struct.error) as error:
            raise ChannelClosed(str(error)) from error
        if not isinstance(message, dict):
            raise ChannelClosed("not a message")
        return message, descriptors

    def has_message(self) -> bool:
        """Whether something can be read now."""
        return bool(self._ahead) or self._is_readable(0)

    def close(self) -> None:
        """Also ends a `receive` that waits in another thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._socket.close()
            return
        self._socket.close()

    def _begin(self) -> list[int]:
        """Read what is there, without waiting for more; where descriptors come too, not beyond a header."""
        if self._ahead:
            return []
        if self._max_descriptors:
            piece, descriptors, _, _ = socket.recv_fds(self._socket, _HEADER.size, self._max_descriptors)
        else:
            piece, descriptors = self._socket.recv(_AHEAD_BYTES), []
        if not piece:
            raise ChannelClosed("closed")
        self._ahead += piece
        return descriptors

    def _take(self, size: int, deadline: float | None) -> bytes:
        while (missing := size - len(self._ahead)) > 0:
            if deadline is not None and not self._is_readable(max(0.0, deadline - monotonic())):
                raise ChannelClosed("stopped in the middle of a message")
            piece = self._socket.recv(min(missing, _PIECE_BYTES))
            if not piece:
                raise ChannelClosed("closed")
            self._ahead += piece
        taken = bytes(self._ahead[:size])
        del self._ahead[:size]
        return taken

    def _is_readable(self, timeout_s: float) -> bool:
        if self._socket.fileno() < 0:
            raise ChannelClosed("closed")
        return bool(self._poll.poll(timeout_s * 1000))


def channel_pair(*, max_message_bytes: int = MAX_MESSAGE_BYTES) -> tuple[Channel, socket.socket]:
    """This process's end, which takes no descriptors, and the one to hand to a worker."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours, max_message_bytes=max_message_bytes), theirs
