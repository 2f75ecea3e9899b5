"""The supervisor's pages: figures, training, known-answer probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from services.review.console.context import Console, caller_of, see_other
from services.review.console.guard import Visit, visit_of
from services.review.console.request_pages import LABELS, day, request_form, wrong_fields
from services.review.model import Urgency
from services.shared.errors import ImageRefused, InvalidRequest

_Visit = Annotated[Visit, Depends(visit_of)]


def routes(console: Console) -> APIRouter:
    router = console.router()
    supervision = console.desk.supervision

    @router.get("/console/unit")
    def unit(visit: _Visit) -> Response:
        figures = supervision.figures(caller_of(visit))
        return console.page(visit, "unit.html", {"figures": figures, "today": console.clock.now().date()})

    @router.post("/console/unit/training")
    def training(visit: _Visit) -> Response:
        form = visit.form
        supervision.record_training(
            caller_of(visit),
            form.text("person_id"),
            course=form.text("course"),
            certificate=form.text("certificate"),
            trained_on=day(form.text("trained_on")),
            expires_on=day(form.text("expires_on")),
        )
        return see_other("/console/unit", "training")

    @router.get("/console/unit/plant")
    def plant_form(visit: _Visit) -> Response:
        return request_form(console, visit, {"urgency": Urgency.ROUTINE.value}, {}, is_planted=True)

    @router.post("/console/unit/plant")
    def plant(visit: _Visit) -> Response:
        form = visit.form
        texts = {name: values for name, values in form.texts.items() if name in LABELS}
        try:
            console.desk.intake.plant(
                caller_of(visit), texts, form.files.get("files", ()), _subject(visit), form.text("shown_requester")
            )
        except (InvalidRequest, ImageRefused) as error:
            return request_form(console, visit, _kept(visit), wrong_fields(error), is_planted=True)
        return see_other("/console/unit", "planted")

    return router


def _subject(visit: Visit) -> tuple[str, str] | None:
    subject_id = visit.form.text("known_subject")
    return (visit.form.text("known_owner") or visit.principal.force, subject_id) if subject_id else None


def _kept(visit: Visit) -> Mapping[str, object]:
    kept: dict[str, object] = {name: visit.form.text(name) for name in LABELS}
    return {**kept, "watchlists": visit.form.all("watchlists")}
