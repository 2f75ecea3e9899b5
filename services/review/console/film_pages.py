"""A film: how far it is read, and the people in it to pick from."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Response
from PIL import Image

from services.review.console.context import Console, caller_of, see_other
from services.review.console.guard import CONTENT_SECURITY_POLICY, Visit, visit_of
from services.review.console.pictures import THUMBNAIL_SIDE_PX, shown
from services.review.console.request_pages import case_context
from services.review.console.words import place
from services.shared.errors import InvalidRequest

if TYPE_CHECKING:
    from services.review.casework.films import FilmView, ShownTrack

_Visit = Annotated[Visit, Depends(visit_of)]
_BASE = "/console/requests/{request_id}/films/{film_id}"
# Chips of many people come with the page: one look at them is one entry in the log, not one for each.
_WITH_CHIPS = CONTENT_SECURITY_POLICY.replace("img-src 'self' blob:", "img-src 'self' blob: data:")


@dataclass(frozen=True, slots=True)
class _Track:
    """A track as the page shows it. `chip` is a data URL of a marked JPEG."""

    shown: ShownTrack
    chip: str

    @property
    def times(self) -> str:
        return ", ".join(" to ".join(dict.fromkeys(map(place, span))) for span in self.shown.appearances)


def routes(console: Console) -> APIRouter:
    router = console.router()
    films = console.desk.films

    @router.get(_BASE)
    def show(visit: _Visit, request_id: str, film_id: str) -> Response:
        view = films.see(caller_of(visit), request_id, film_id, with_chips=True)
        case = console.desk.looking.case(caller_of(visit), request_id)
        context = {
            **case_context(case),
            "film": view,
            "number": next(n for n, film in enumerate(view.case.films, 1) if film.film_id == film_id),
            "tracks": _tracks(console, visit, view),
        }
        response = console.page(visit, "film.html", context)
        response.headers["Content-Security-Policy"] = _WITH_CHIPS
        return response

    @router.post(_BASE + "/read")
    def read(visit: _Visit, request_id: str, film_id: str) -> Response:
        films.read(caller_of(visit), request_id, visit.form.whole("version"), film_id)
        return see_other(f"/console/requests/{request_id}/films/{film_id}", "film-read")

    @router.post(_BASE + "/pick")
    def pick(visit: _Visit, request_id: str, film_id: str) -> Response:
        case = films.pick(
            caller_of(visit), request_id, visit.form.whole("version"), film_id, _numbers(visit.form.all("track"))
        )
        probe = next(probe for probe in case.probes if probe.assessment is None)
        return see_other(f"/console/requests/{request_id}/probes/{probe.probe_id}", "picked")

    return router


def _tracks(console: Console, visit: Visit, view: FilmView) -> list[_Track]:
    at, person_id = console.clock.now(), visit.principal.person_id
    found = []
    for track in view.tracks:
        with Image.open(io.BytesIO(track.stills[0].chip)) as chip:
            content = shown(chip, person_id, at, THUMBNAIL_SIDE_PX)
        found.append(_Track(track, f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"))
    return found


def _numbers(values: tuple[str, ...]) -> list[int]:
    if any(not value.isdecimal() or len(value) > 9 for value in values):
        raise InvalidRequest("There is no such track.", advice="Pick from the tracks shown.")
    return [int(value) for value in values]
