"""A probe: the original beside its working copy, its faces and their quality, the steps made, the searches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Response

from services.review.casework.probes import taken_faces
from services.review.casework.searching import DEFAULT_CANDIDATES
from services.review.console.context import Console, caller_of, see_other
from services.review.console.guard import Form, Visit, visit_of
from services.review.console.request_pages import case_context, chosen
from services.review.enhancement import LIMITS, Amount
from services.review.model import (
    Appearance,
    CandidateForJudgement,
    CaseState,
    Enhancement,
    EnhancementStep,
    ProbeFace,
    ProbeImage,
    StepKind,
    Suitability,
)
from services.review.partners import standing
from services.review.suitability import in_words, measured
from services.review.workflow import Action
from services.shared.errors import DependencyUnavailable, InvalidRequest, NotFound

if TYPE_CHECKING:
    from services.review.casework.looking import CaseView

_Visit = Annotated[Visit, Depends(visit_of)]
_BASE = "/console/requests/{request_id}/probes/{probe_id}"
ORIGINAL = "original"

# In the order in which they are made: lines before pixels move, the cut before tones, noise before edges.
_ORDER = (
    StepKind.DEINTERLACE,
    StepKind.CROP,
    StepKind.ROTATE,
    StepKind.MIRROR,
    StepKind.BRIGHTNESS,
    StepKind.CONTRAST,
    StepKind.GAMMA,
    StepKind.DENOISE,
    StepKind.SHARPEN,
)
_NUMBERS: Sequence[tuple[StepKind, str, str]] = (
    (StepKind.ROTATE, "degrees", "Rotate"),
    (StepKind.BRIGHTNESS, "levels", "Brightness"),
    (StepKind.CONTRAST, "factor", "Contrast"),
    (StepKind.GAMMA, "gamma", "Gamma"),
    (StepKind.DENOISE, "strength", "Remove noise"),
    (StepKind.SHARPEN, "strength", "Sharpen"),
)


def routes(console: Console) -> APIRouter:
    router = console.router()
    desk = console.desk

    @router.get("/console/requests/{request_id}/probe")
    def first(visit: _Visit, request_id: str) -> Response:
        """The first probe that is not assessed yet, else the first."""
        case = desk.looking.case(caller_of(visit), request_id).case
        probes = case.probes
        if not probes and case.films:
            return see_other(f"/console/requests/{request_id}/films/{case.films[0].film_id}")
        if not probes:
            raise NotFound("The request has no probe.")
        probe = next((probe for probe in probes if probe.assessment is None), probes[0])
        return see_other(f"/console/requests/{request_id}/probes/{probe.probe_id}")

    @router.get(_BASE)
    def show(visit: _Visit, request_id: str, probe_id: str) -> Response:
        view = desk.looking.case(caller_of(visit), request_id)
        context = _context(view, probe_id, visit.request.query_params.get("copy", ""))
        return console.page(visit, "probe.html", {**context, **_partners(console, visit, view)})

    @router.post(_BASE + "/assess")
    def assess(visit: _Visit, request_id: str, probe_id: str) -> Response:
        form = visit.form
        grade = chosen(Suitability, form.text("grade"), "Grade")
        desk.probes.assess(
            caller_of(visit),
            request_id,
            form.whole("version"),
            probe_id=probe_id,
            face=form.whole("face", 0),
            grade=grade,
            remarks=form.text("remarks"),
        )
        return see_other(f"/console/requests/{request_id}/probes/{probe_id}", "assessed")

    @router.post(_BASE + "/faces")
    def pick_faces(visit: _Visit, request_id: str, probe_id: str) -> Response:
        faces = [_face_number(text) for text in visit.form.all("face")]
        case = desk.probes.pick_faces(
            caller_of(visit), request_id, visit.form.whole("version"), probe_id=probe_id, faces=faces
        )
        first_new = case.probes[-len(set(faces))]
        return see_other(f"/console/requests/{request_id}/probes/{first_new.probe_id}", "picked")

    @router.post(_BASE + "/enhance")
    def enhance(visit: _Visit, request_id: str, probe_id: str) -> Response:
        form = visit.form
        caller = caller_of(visit)
        before: tuple[EnhancementStep, ...] = ()
        if form.text("from"):
            case = desk.looking.case(caller, request_id).case
            before = _recipe(_probe(case.probes, probe_id), form.text("from")).steps
        steps = (*before, *_steps(form))
        desk.probes.enhance(
            caller, request_id, form.whole("version"), probe_id=probe_id, steps=steps, reason=form.text("reason")
        )
        return see_other(f"/console/requests/{request_id}/probes/{probe_id}", "enhanced")

    @router.post(_BASE + "/search")
    def search(visit: _Visit, request_id: str, probe_id: str) -> Response:
        form = visit.form
        case = desk.searching(
            caller_of(visit),
            request_id,
            form.whole("version"),
            probe_id=probe_id,
            enhancement_id=form.text("enhancement_id") or None,
            reason=form.text("reason"),
            max_candidates=form.whole("max_candidates", DEFAULT_CANDIDATES),
            partners=form.all("partners"),
            authority=form.text("authority"),
        )
        told = "flagged" if case.state is CaseState.FLAGGED else "searched"
        return see_other(f"/console/requests/{request_id}/probes/{probe_id}", told)

    return router


def _context(view: CaseView, probe_id: str, copy: str) -> dict[str, Any]:
    case = view.case
    probe = _probe(case.probes, probe_id)
    recipe = None
    if copy != ORIGINAL and probe.enhancements:
        recipe = _recipe(probe, copy) if copy else probe.enhancements[-1]
    face = _face(probe)
    searches = [search for search in case.searches if search.probe_id == probe_id]
    return {
        **case_context(view),
        "probe": probe,
        "number": case.probes.index(probe) + 1,
        "recipe": recipe,
        "shown": recipe.enhancement_id if recipe else ORIGINAL,
        "shown_width": recipe.width if recipe else probe.working_width,
        "shown_height": recipe.height if recipe else probe.working_height,
        "face": face,
        "chosen": face.index if face else None,
        "further": [found for found in probe.faces if found.index not in taken_faces(case, probe)],
        "grades": tuple(Suitability),
        "suggested": measured(face) if face else Suitability.UNSUITABLE,
        "eyes": {found.index: in_words(found)[0].capitalize() for found in probe.faces},
        "searches": searches,
        "listed": _listed(case.candidates, {search.search_id for search in searches}),
        "enquiries": [one for one in standing(case.enquiries) if one.probe_id == probe_id],
        "amounts": list(_amounts()),
        "default_candidates": DEFAULT_CANDIDATES,
    }


def _listed(
    candidates: Sequence[CandidateForJudgement], searches: Collection[str]
) -> list[tuple[CandidateForJudgement, list[Appearance]]]:
    """Who stood in lists of this probe, and where in each; a case may have several probes."""
    found = ((one, [place for place in one.appearances if place.search_id in searches]) for one in candidates)
    return sorted((one for one in found if one[1]), key=lambda one: min(place.rank for place in one[1]))


def _partners(console: Console, visit: Visit, view: CaseView) -> dict[str, Any]:
    """Whom a search may be sent to, where there is one to be made; without the service that knows it, nobody."""
    if Action.SEARCH not in view.possible:
        return {"partners": (), "partners_away": False}
    try:
        return {"partners": console.desk.searching.partners(caller_of(visit), view.case), "partners_away": False}
    except DependencyUnavailable:
        return {"partners": (), "partners_away": True}


def _amounts() -> Iterator[tuple[str, str, str, Amount, str]]:
    for kind, name, label in _NUMBERS:
        limit = LIMITS[kind][name]
        yield kind.value, name, label, limit, limit.meaning.capitalize()


def _probe(probes: Sequence[ProbeImage], probe_id: str) -> ProbeImage:
    found = next((probe for probe in probes if probe.probe_id == probe_id), None)
    if found is None:
        raise NotFound("There is no such probe.")
    return found


def _face_number(text: str) -> int:
    if not text.isdecimal() or len(text) > 4:
        raise InvalidRequest("There is no such face.", advice="Pick from the faces shown.")
    return int(text)


def _recipe(probe: ProbeImage, enhancement_id: str) -> Enhancement:
    found = next((made for made in probe.enhancements if made.enhancement_id == enhancement_id), None)
    if found is None:
        raise NotFound("There is no such working copy.")
    return found


def _face(probe: ProbeImage) -> ProbeFace | None:
    """The chosen face; before that whom was picked in the film, or the largest one, as a suggestion."""
    known = probe.face if probe.face is not None or probe.frame is None else probe.frame.face
    if known is not None:
        return next((face for face in probe.faces if face.index == known), None)
    return max(probe.faces, key=lambda face: face.inter_eye_px, default=None)


def _steps(form: Form) -> tuple[EnhancementStep, ...]:
    """The steps that a form asks for; what is left empty is not done. Raises InvalidRequest."""
    wanted: dict[StepKind, Mapping[str, float]] = {}
    for kind, name, _ in _NUMBERS:
        text = form.text(f"{kind.value}.{name}")
        if text:
            wanted[kind] = {name: _number(text)}
    crop = {name: form.text(f"crop.{name}") for name in LIMITS[StepKind.CROP]}
    if any(crop.values()):
        wanted[StepKind.CROP] = {name: _number(text or "0") for name, text in crop.items()}
    also = form.all("also")
    if "mirror" in also:
        wanted[StepKind.MIRROR] = {}
    if "deinterlace" in also:
        wanted[StepKind.DEINTERLACE] = {"field": 0.0}
    if not wanted:
        raise InvalidRequest("No step was chosen.", advice="Fill in at least one step, or search the original.")
    return tuple(EnhancementStep(kind, wanted[kind]) for kind in _ORDER if kind in wanted)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidRequest("A step has an amount that is no number.", advice="Use digits and a point.") from error
