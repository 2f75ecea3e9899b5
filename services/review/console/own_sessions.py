"""A person's own sessions: where they were begun, when they were used, and an end to any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from services.review.casework.trail import About
from services.review.console.context import Console, see_other
from services.review.console.guard import COOKIE, Visit, visit_of
from services.shared.errors import InvalidRequest

END_SESSIONS = "end_sessions"
_Visit = Annotated[Visit, Depends(visit_of)]
# What a browser says of itself names those that it wants to be taken for as well: the first that fits is meant.
_BROWSERS = (
    ("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("HeadlessChrome/", "Chromium"),
    ("Chrome/", "Chrome or Chromium"), ("Safari/", "Safari"),
)  # fmt: skip
_SYSTEMS = (
    ("Windows", "Windows"), ("Android", "Android"), ("iPhone", "an iPhone"), ("iPad", "an iPad"), ("CrOS", "ChromeOS"),
    ("Mac OS X", "a Mac"), ("Linux", "Linux"),
)  # fmt: skip


def add_own_sessions(router: APIRouter, console: Console, signed_out: Callable[[Visit], Response]) -> None:
    """The page, and ending what it shows. `signed_out` answers whoever ended the session that asks."""

    @router.get("/console/sessions")
    def show(visit: _Visit) -> Response:
        return console.page(visit, "sessions.html", {"sessions": console.sessions.own(_cookie(visit))})

    @router.post("/console/sessions/end")
    def end(visit: _Visit) -> Response:
        cookie, chosen = _cookie(visit), frozenset(visit.form.all("session"))
        own = console.sessions.own(cookie)
        ending = [one for one in own if one.session_id in chosen]
        if not chosen or chosen - {one.session_id for one in own}:
            raise InvalidRequest(
                "No such session of yours stands any more.",
                advice="Open “Your sessions” again: it shows those that do.",
            )
        about = About(tuple(f"session:{one.session_id}" for one in ending))
        with console.desk.trail.act(visit.principal, END_SESSIONS, about) as act:
            act.details["sessions"] = str(len(ending))
            console.sessions.end_own(cookie, chosen)
        if any(one.is_this for one in ending):
            return signed_out(visit)
        return see_other("/console/sessions", "session-ended")


def agent_of(request: Request) -> str:
    """The browser in a few words of ours: what it says of itself is a stranger's text and is kept nowhere."""
    said = request.headers.get("user-agent", "")
    browser = next((name for mark, name in _BROWSERS if mark in said), "another program")
    system = next((name for mark, name in _SYSTEMS if mark in said), "")
    return f"{browser} on {system}" if system else browser


def _cookie(visit: Visit) -> str:
    return visit.request.cookies.get(COOKIE, "")
