"""Turns: what is slow waits for its own kind, and never before a page that somebody has asked for.

Every route of a service shares one pool of threads. A candidate's page asks for a dozen pictures, each of which waits
for the image gate; whoever judges quickly leaves most of them behind, and those go on waiting. Without turns of their
own they take every thread, and the next page hangs until they have given up.

A picture that could not be made because somebody was busy is tried again for a while: a page whose pictures are asked
for at once is what keeps the gate busy, and an empty frame is not what a person compares. Each try is a consultation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, current_time, sleep
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from fastapi import Request

from services.shared.errors import DependencyUnavailable, Overloaded

_Answer = TypeVar("_Answer")
PICTURES_AT_ONCE = 12  # more than the gate looks at together on any machine that one replica stands on
PATIENCE_S = 20.0
_PAUSE_S = 0.5
SESSIONS_AT_ONCE = 8  # a look into the database each

_pictures: RunVar[tuple[CapacityLimiter, CapacityLimiter]] = RunVar("pictures")
_sessions: RunVar[CapacityLimiter] = RunVar("sessions")


async def picture_turn(request: Request, make: Callable[[], _Answer]) -> _Answer:
    """Make a picture when its turn comes, unless nobody waits for it any more. Raises Overloaded then, and whatever
    `make` raises; busy services are asked again for PATIENCE_S."""
    try:
        turns, threads = _pictures.get()
    except LookupError:
        turns, threads = CapacityLimiter(PICTURES_AT_ONCE), CapacityLimiter(PICTURES_AT_ONCE)
        _pictures.set((turns, threads))
    async with turns:
        until = current_time() + PATIENCE_S
        while True:
            # The first message is the empty body of the request.
            if await request.is_disconnected() or await request.is_disconnected():
                raise Overloaded("Nobody waits for the picture any more.", advice="Open the page again.")
            try:
                return await run_sync(make, limiter=threads)
            except (Overloaded, DependencyUnavailable):
                if current_time() > until:
                    raise
            await sleep(_PAUSE_S)


async def session_turn(find: Callable[[str], _Answer], cookie: str) -> _Answer:
    """Ask for a session off the event loop, and not behind pages that wait for other services."""
    try:
        threads = _sessions.get()
    except LookupError:
        threads = CapacityLimiter(SESSIONS_AT_ONCE)
        _sessions.set(threads)
    return await run_sync(find, cookie, limiter=threads)
