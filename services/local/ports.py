"""Ports that nobody else is given before whoever they are meant for listens."""

from __future__ import annotations

import socket
import sys
from collections import deque

_MOST_HELD = 400
# A socket that is bound but does not listen keeps its port from every automatic choice of the kernel: other calls of
# this function, in this process or another, and the near ends of outgoing connections, which are long and many here.
# Whoever asks for the port by its number gets it, as servers do (with SO_REUSEADDR, which all of them set). Held for
# the process's life, so that a server that is killed finds its port again; only the newest, as descriptors are few.
_held: deque[socket.socket] = deque(maxlen=_MOST_HELD)


def reserve_ports(host: str, count: int) -> list[int]:
    """Ports of `host` on which nobody listens, all different, and kept from chance while this process lives."""
    opened = [_bound(host) for _ in range(count)]
    numbers = [int(each.getsockname()[1]) for each in opened]
    if sys.platform == "linux":
        _held.extend(opened)
    else:  # elsewhere a port that is bound is refused to everybody
        for each in opened:
            each.close()
    return numbers


def _bound(host: str) -> socket.socket:
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((host, 0))
    return opened
