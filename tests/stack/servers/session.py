"""One server of a kind for a whole session of tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from tests.stack.servers.base import ServerProcess

_Address = TypeVar("_Address")


def server_of_session(
    running: _Address | None, make: Callable[[], tuple[ServerProcess, _Address]]
) -> Iterator[_Address]:
    """The address of one that runs already, or of one that is started now and discarded at the end.

    For `yield from` in a fixture.
    """
    if running:
        yield running
        return
    server, address = make()
    server.start()
    yield address
    server.discard()
