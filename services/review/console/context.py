"""What the pages of the console share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from services.review.casework.caller import Caller
from services.review.console import words
from services.review.console.guard import COOKIE, Form, Visit, guarded_route, with_headers
from services.review.console.rendering import Pages
from services.review.console.sessions import Sessions
from services.review.uploads import FilmSettings
from services.shared.clock import Clock
from services.shared.errors import LikenessError, Unauthenticated
from services.shared.watchlists import WatchlistFile

if TYPE_CHECKING:
    from services.review.casework.desk import Desk

_TITLES: Mapping[int, str] = {
    401: "Please sign in",
    403: "This is not open to you",
    404: "There is no such page, or it is not yours",
    409: "The request has moved on",
    413: "That is too large",
    422: "Something is missing or wrong",
    429: "Please wait a little",
}

_UNSENT = "Copy what you wrote, sign in, and send it again: none of it was stored."

# What a page says after something was done; its key travels in the address.
TOLD: Mapping[str, str] = {
    "sent": "The request was sent. You will see here how it goes on.",
    "accepted": "Accepted. The probe is assessed next.",
    "returned": "Sent back to the requesting officer.",
    "withdrawn": "Withdrawn.",
    "film-read": "The film is being read. You can leave this page.",
    "picked": "Taken over as probes. Assess each.",
    "unsuitable": "Called not suitable. The requesting officer reads why.",
    "assessed": "The assessment is recorded.",
    "enhanced": "The working copy was made from the sealed original.",
    "searched": "Searched. The candidates wait for the first review.",
    "flagged": "Searched. The probe is flagged: a supervisor decides whether it may be used before anybody judges.",
    "probe-allowed": "Allowed. The candidates wait for the first review.",
    "probe-refused": "Refused. The requesting officer reads your reason.",
    "judged": "Recorded. This is the next candidate.",
    "undone": "Undone. The candidate can be judged again.",
    "signed": "Signed. Thank you.",
    "arbitrated": "Your decision is recorded.",
    "released": "Released to the requesting officer.",
    "disclosure-approved": "Approved. Somebody else can hand the full pack out now, once, within a day.",
    "outcome": "The outcome is recorded.",
    "kept": "Kept in the unsolved file.",
    "closed": "Closed.",
    "review-retain": "Kept until its next review.",
    "review-erase": "It is erased after its quarantine; until then that can be lifted.",
    "flag-dismissed": "Dismissed. It is not flagged again.",
    "flag-acted": "Recorded that the records were put right.",
    "training": "The training record is stored.",
    "session-ended": "Ended. Whoever used it has to sign in again.",
    "planted": "The known-answer probe waits in the queue like any other request.",
}


@dataclass(frozen=True)
class Console:
    """The use cases, the clock and the templates, as every page has them."""

    desk: Desk
    pages: Pages
    sessions: Sessions
    clock: Clock
    watchlists: WatchlistFile
    films: FilmSettings

    def router(self) -> APIRouter:
        """A router whose every route is behind the sign-in."""
        return APIRouter(include_in_schema=False, route_class=guarded_route(self.sessions, self.error, self.films))

    def page(
        self, visit: Visit, template: str, context: Mapping[str, Any] | None = None, *, status_code: int = 200
    ) -> Response:
        told = TOLD.get(visit.request.query_params.get("told", ""), "")
        return self.pages.page(
            visit.request, template, {"told": told, **(context or {})}, session=visit.session, status_code=status_code
        )

    def _signed_out(self, request: Request, error: Unauthenticated) -> Response:
        ended = str(error.context.get("ended", ""))
        if "text/html" not in request.headers.get("accept", ""):
            return with_headers(Response("Please sign in.", status_code=401, media_type="text/plain"))
        if request.method == "GET":
            told = f"?ended={ended or 1}" if COOKIE in request.cookies else ""
            return with_headers(RedirectResponse(f"/console/sign-in{told}", status_code=303))
        context = {
            "title": _TITLES[401],
            "error": LikenessError(words.ENDED.get(ended, words.ENDED["1"]), advice=_UNSENT, code=error.code),
            "reasons": (),
            "back": "",
            "written": _written(getattr(request.state, "unsent", Form())),
        }
        return with_headers(self.pages.page(request, "error.html", context, status_code=401))

    def error(self, request: Request, error: LikenessError) -> Response:
        """The page that says why not and what to do; without a session the way to the sign-in."""
        if isinstance(error, Unauthenticated):
            return self._signed_out(request, error)
        session = getattr(request.state, "session", None)
        # Where the person stood, so that one click shows the case as it is now.
        parts = request.url.path.split("/")
        back = "/".join(parts[:4]) if parts[2:3] == ["requests"] and len(parts) > 3 and error.http_status == 409 else ""
        context = {
            "title": _TITLES.get(error.http_status, "The platform cannot do this now"),
            "error": error,
            "reasons": reasons_of(error),
            "back": back,
            "written": _written(visit.form) if (visit := getattr(request.state, "visit", None)) else (),
        }
        response = self.pages.page(request, "error.html", context, session=session, status_code=error.http_status)
        return with_headers(response)


def reasons_of(error: LikenessError) -> tuple[str, ...]:
    """The further reasons and wrong fields that an error names."""
    reasons = error.context.get("reasons", ())
    fields = error.context.get("fields", ())
    told = [str(reason) for reason in reasons] if isinstance(reasons, list | tuple) else [str(reasons)]
    return (*told, *(f"{field['field']}: {field['problem']}" for field in fields))


# What people write in sentences, by the name of its field or the beginning of it.
_PROSE = ("reason", "remark", "why", "authority", "necessity")


def _written(form: Form) -> tuple[tuple[str, str], ...]:
    """What somebody wrote in a form that was refused, so that nobody has to write it twice."""
    names = [name for name in form.texts if name.startswith(_PROSE)]
    return tuple((name.partition(".")[0], form.text(name)) for name in names if form.text(name))


def caller_of(visit: Visit) -> Caller:
    return Caller(visit.principal, visit.session.token)


def see_other(path: str, told: str = "") -> Response:
    """Go on to a page after something was done, so that reloading does not do it again."""
    return RedirectResponse(f"{path}?told={told}" if told else path, status_code=303)
