"""Turns: what is slow waits for its own kind, and never before a page that somebody has asked for.

Every route of a service shares one pool of threads. A candidate's page asks for a dozen pictures, each of which waits
for the image gate; whoever judges quickly leaves most of them behind, and those go on waiting. Without turns of their
own they take every thread, and the next page hangs until they have given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from fastapi import Request

from services.shared.errors import Overloaded

_Answer = TypeVar("_Answer")
PICTURES_AT_ONCE = 12  # more than the gate looks at together on any machine that one replica stands on
SESSIONS_AT_ONCE = 8  # a look into the database each

_pictures: RunVar[tuple[CapacityLimiter, CapacityLimiter]] = RunVar("pictures")
_sessions: RunVar[CapacityLimiter] = RunVar("sessions")


async def picture_turn(request: Request, make: Callable[[], _Answer]) -> _Answer:
    """Make a picture when its turn comes, unless nobody waits for it any more. Raises Overloaded then."""
    try:
        turns, threads = _pictures.get()
    except LookupError:
        turns, threads = CapacityLimiter(PICTURES_AT_ONCE), CapacityLimiter(PICTURES_AT_ONCE)
        _pictures.set((turns, threads))
    async with turns:
        # The first message is the empty body of the request.
        if await request.is_disconnected() or await request.is_disconnected():
            raise Overloaded("Nobody waits for the picture any more.", advice="Open the page again.")
        return await run_sync(make, limiter=threads)


async def session_turn(find: Callable[[str], _Answer], cookie: str) -> _Answer:
    """Ask for a session off the event loop, and not behind pages that wait for other services."""
    try:
        threads = _sessions.get()
    except LookupError:
        threads = CapacityLimiter(SESSIONS_AT_ONCE)
        _sessions.set(threads)
    return await run_sync(find, cookie, limiter=threads)
