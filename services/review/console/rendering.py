"""Pages from templates. Everything that is put into one is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from services.review.console import words
from services.review.console.sessions import Session

THEMES = ("auto", "light", "dark")
THEME_COOKIE = "likeness-theme"


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of the navigation, for those who have one of the roles."""

    path: str
    title: str
    roles: frozenset[str]


_WORKING = frozenset({"operator", "supervisor", "requester"})
PLACES = (
    Place("/console/queue", "Queue", _WORKING),
    Place("/console/requests/new", "New request", frozenset({"requester", "operator"})),
    Place("/console/unsolved", "Unsolved file", _WORKING),
    Place("/console/unit", "Unit figures", frozenset({"supervisor"})),
    Place("/console/watchlists", "Watchlists", frozenset({"custodian"})),
    Place("/console/reviews", "Reviews due", frozenset({"custodian"})),
    Place("/console/flags", "Flags", frozenset({"custodian"})),
    Place("/console/refusals", "Refused enrolments", frozenset({"custodian"})),
    Place("/console/log", "Audit log", frozenset({"auditor"})),
    Place("/console/statistics", "Statistics", frozenset({"auditor", "supervisor"})),
    Place("/console/transparency", "Transparency", frozenset({"auditor"})),
    Place("/console/guide", "Guide", frozenset()),
)


def places_for(roles: frozenset[str]) -> tuple[Place, ...]:
    return tuple(place for place in PLACES if not place.roles or place.roles & roles)


def home_of(roles: frozenset[str]) -> str:
    """Where a person begins."""
    return places_for(roles)[0].path


class Pages:
    """Renders the console's templates."""

    def __init__(self, static_path: str) -> None:
        self._environment = Environment(
            loader=PackageLoader("services.review.console"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        self._environment.filters.update(
            phrase=words.phrase,
            moment=words.moment,
            month=words.month,
            place=words.place,
            quality_name=words.quality_name,
            component_words=lambda value, component: words.component_words(component, value),
        )
        self._environment.globals.update(age=words.age, until=words.until, static=static_path)

    def page(
        self,
        request: Request,
        template: str,
        context: Mapping[str, Any] | None = None,
        *,
        session: Session | None = None,
        status_code: int = 200,
    ) -> HTMLResponse:
        """One page. `session` is the reader's; without it the page has no navigation and no form to send."""
        theme = request.cookies.get(THEME_COOKIE, "auto")
        html = self._environment.get_template(template).render(
            session=session,
            csrf=session.csrf if session else "",
            places=places_for(session.principal.roles) if session else (),
            path=request.url.path,
            theme=theme if theme in THEMES else "auto",
            **(context or {}),
        )
        return HTMLResponse(html, status_code=status_code)
