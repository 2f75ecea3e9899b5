"""ClamAV's daemon over its INSTREAM protocol (clamd(8)): a stream of pieces in, one line out.

No client library: those of PyPI (clamd 1.0.2 of 2014, pyclamd 0.4.0 of 2017, clamav-client 0.7.2, all LGPL) send 1 KiB
at a time, have a timeout for each call of the socket but none for the whole, so that a scanner that drips holds its
caller for ever, and read an answer of any length.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from time import monotonic
from typing import NoReturn

from services.shared.errors import DependencyUnavailable

_SENT_AT_ONCE = 128 * 1024
# Of a stream that is longer than one scan, this much is scanned twice, so that what lies across a border is found.
_OVERLAP_BYTES = 1024 * 1024
_MAX_ANSWER_BYTES = 4096
_USUAL_BYTES = 4 * 1024 * 1024
_SLOWEST_BYTES_PER_S = 3 * 1024 * 1024
_FOUND = re.compile(r"stream: (.+) FOUND", re.DOTALL)
_ODD = re.compile(r"[^\w.:/+(){}-]")
_MAX_NAME = 120
_LENGTH = struct.Struct("!L")


class ClamdScanner:
    """See services.shared.ports.malware_scanner. `address` is `host:port`, or the path of a socket.

    A stream longer than `stream_bytes` is scanned in parts of that size. Each part has `timeout_s` for everything,
    connecting, sending, the verdict; more where it is longer than any usual picture (`allowance_s`).
    """

    name = "clamd"

    def __init__(self, address: str, *, timeout_s: float, stream_bytes: int) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._stream_bytes = stream_bytes

    def scan(self, pieces: Iterable[bytes]) -> str | None:
        for part in in_parts(pieces, self._stream_bytes, min(_OVERLAP_BYTES, self._stream_bytes // 2)):
            found = self._scan_part(part)
            if found is not None:
                return found
        return None

    def _scan_part(self, part: memoryview) -> str | None:
        deadline_s = monotonic() + self._timeout_s + allowance_s(len(part))
        try:
            with self._connected(deadline_s) as connection:
                # One that answers before the end, because it has enough, may close before it has read everything.
                with suppress(BrokenPipeError, ConnectionResetError):
                    _send(connection, part, deadline_s)
                return _verdict(_answer(connection, deadline_s))
        except OSError as error:  # TimeoutError is one
            _unavailable("The virus scanner does not answer in time or cannot be reached.", error)

    def _connected(self, deadline_s: float) -> socket.socket:
        if self._address.startswith("/"):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(_left_s(deadline_s))
                connection.connect(self._address)
            except BaseException:
                connection.close()
                raise
            return connection
        host, _, port = self._address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=_left_s(deadline_s))


def allowance_s(size_bytes: int) -> float:
    """What a scan of so many bytes may take beyond a usual one: clamd looked at 10 to 20 MB a second and core."""
    return max(0, size_bytes - _USUAL_BYTES) / _SLOWEST_BYTES_PER_S


def in_parts(pieces: Iterable[bytes], size: int, overlap: int) -> Iterator[memoryview]:
    """The stream in parts of at most `size` bytes, each beginning with the last `overlap` bytes of the one before.
    An empty stream is one empty part."""
    held = bytearray()
    is_whole = True
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            if len(held) == size:
                yield memoryview(bytes(held))
                held, is_whole = held[-overlap:], False
            room = size - len(held)
            held += rest[:room]
            rest = rest[room:]
    if is_whole or len(held) > overlap:
        yield memoryview(bytes(held))


def _send(connection: socket.socket, part: memoryview, deadline_s: float) -> None:
    def send(data: bytes | memoryview) -> None:
        connection.settimeout(_left_s(deadline_s))
        connection.sendall(data)

    send(b"zINSTREAM\0")
    for start in range(0, len(part), _SENT_AT_ONCE):
        chunk = part[start : start + _SENT_AT_ONCE]
        send(_LENGTH.pack(len(chunk)))
        send(chunk)
    send(_LENGTH.pack(0))


def _answer(connection: socket.socket, deadline_s: float) -> str:
    answer = bytearray()
    while not answer.endswith(b"\0") and len(answer) < _MAX_ANSWER_BYTES:
        connection.settimeout(_left_s(deadline_s))
        received = connection.recv(_MAX_ANSWER_BYTES)
        if not received:
            break
        answer += received
    return answer.rstrip(b"\0\n").decode("utf-8", "replace")


def _verdict(answer: str) -> str | None:
    """Everything that is neither clean nor found is no verdict."""
    if answer == "stream: OK":
        return None
    found = _FOUND.fullmatch(answer)
    if found is not None:
        return _ODD.sub("_", found[1])[:_MAX_NAME]
    if "size limit exceeded" in answer:
        _unavailable("The virus scanner's own limit (StreamMaxLength) is below scanner.stream_bytes.", None)
    _unavailable("The virus scanner gave no verdict.", None)


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - monotonic()
    if left_s <= 0:
        raise TimeoutError("out of time")
    return left_s


def _unavailable(detail: str, cause: OSError | None) -> NoReturn:
    raise DependencyUnavailable(
        f"{detail} Nothing was stored.",
        advice="Try again in a few seconds; operators: start clamd and see its log.",
    ) from cause
