"""The candidates, one at a time beside the probe; the judgement; the signature. And the supervisor's view of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Response

from services.review.console.context import Console, caller_of, reasons_of, see_other
from services.review.console.guard import Form, Visit, visit_of
from services.review.console.request_pages import chosen
from services.review.model import FacialFeature, FeatureRemark, Finding, Observation, ProbeFace, ProbeImage
from services.shared.errors import CallerError, InvalidRequest, LikenessError, NotFound

if TYPE_CHECKING:
    from services.review.casework.comparison import ComparedCandidate, Comparison
    from services.review.casework.deciding import Disagreement

_Visit = Annotated[Visit, Depends(visit_of)]
_BASE = "/console/requests/{request_id}"
LANDMARKS = (
    *("right eye", "left eye", "nose tip", "right mouth corner", "left mouth corner"),
    *("right ear", "left ear", "chin", "mark 1", "mark 2", "mark 3"),
)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A picture of the probe that can be put beside a candidate. `key` is its place under the request's probes.

    `faces`: where the eyes are is asked for with the picture: it is known beforehand for originals alone, because a
    recipe may have turned or cut the picture.
    """

    key: str
    words: str
    landmarks: str
    size: str
    faces: bool = False


def routes(console: Console) -> APIRouter:
    router = console.router()
    _add_comparing(router, console)
    _add_judging(router, console)
    _add_signing(router, console)
    _add_disagreement(router, console)
    return router


def _add_comparing(router: APIRouter, console: Console) -> None:
    examining = console.desk.examining

    @router.post(_BASE + "/begin")
    def begin(visit: _Visit, request_id: str) -> Response:
        examining.begin(caller_of(visit), request_id, visit.form.whole("version"))
        return see_other(f"/console/requests/{request_id}/compare/1")

    @router.get(_BASE + "/compare")
    def resume(visit: _Visit, request_id: str) -> Response:
        """The first candidate that is not judged yet; the signature when all are."""
        comparison = examining.comparison(caller_of(visit), request_id)
        unjudged = _next_unjudged(comparison, 0)
        if unjudged is None and comparison.signature is None:
            return see_other(f"/console/requests/{request_id}/sign")
        return see_other(f"/console/requests/{request_id}/compare/{unjudged or 1}")

    @router.get(_BASE + "/compare/{position}")
    def compare(visit: _Visit, request_id: str, position: int) -> Response:
        return _candidate_page(console, visit, request_id, position)


def _add_judging(router: APIRouter, console: Console) -> None:
    examining = console.desk.examining

    @router.post(_BASE + "/compare/undo")
    def undo(visit: _Visit, request_id: str) -> Response:
        form = visit.form
        candidate_id = form.text("candidate_id")
        comparison = examining.undo(caller_of(visit), request_id, form.whole("version"), candidate_id)
        position = next((c.position for c in comparison.candidates if c.candidate_id == candidate_id), 1)
        return see_other(f"/console/requests/{request_id}/compare/{position}", "undone")

    @router.post(_BASE + "/compare/{position}")
    def judge(visit: _Visit, request_id: str, position: int) -> Response:
        form = visit.form
        try:
            examining.judge(
                caller_of(visit),
                request_id,
                form.whole("version"),
                candidate_id=form.text("candidate_id"),
                finding=chosen(Finding, form.text("finding"), "Finding"),
                features=_features(form),
                remarks=form.text("remarks"),
            )
        except CallerError as error:
            return _candidate_page(console, visit, request_id, position, problem=error)
        # The judged candidate first, so that what is revealed about it is seen; the way on is one key away.
        return see_other(f"/console/requests/{request_id}/compare/{position}", "judged")


def _add_signing(router: APIRouter, console: Console) -> None:
    examining = console.desk.examining

    def page(visit: Visit, comparison: Comparison, problem: LikenessError | None = None) -> Response:
        reasons = reasons_of(problem) if problem else ()
        context = {"comparison": comparison, "problem": problem, "reasons": reasons}
        return console.page(visit, "sign.html", context, status_code=problem.http_status if problem else 200)

    @router.get(_BASE + "/sign")
    def read(visit: _Visit, request_id: str) -> Response:
        return page(visit, examining.comparison(caller_of(visit), request_id))

    @router.post(_BASE + "/sign")
    def sign(visit: _Visit, request_id: str) -> Response:
        caller = caller_of(visit)
        try:
            if visit.form.text("declared") != "yes":
                raise InvalidRequest("The declaration is not ticked.", advice="Read it, tick it, then sign.")
            examining.sign(caller, request_id, visit.form.whole("version"))
        except CallerError as error:
            return page(visit, examining.comparison(caller, request_id), error)
        return see_other(f"/console/requests/{request_id}", "signed")


def _add_disagreement(router: APIRouter, console: Console) -> None:
    deciding = console.desk.deciding

    @router.get(_BASE + "/disagreement")
    def show(visit: _Visit, request_id: str) -> Response:
        found = deciding.disagreement(caller_of(visit), request_id)
        probes, probe_of = _probes_of_dispute(found)
        context = {
            "disagreement": found,
            "case": found.case,
            "sides": [(one, one.standing()) for one in (found.first, found.second)],
            "findings": tuple(Finding),
            "probes": probes,
            "probe_of": probe_of,
            "landmarks": LANDMARKS,
        }
        return console.page(visit, "disagreement.html", context)

    @router.post(_BASE + "/disagreement")
    def decide(visit: _Visit, request_id: str) -> Response:
        form = visit.form
        names = [name.removeprefix("finding.") for name in form.texts if name.startswith("finding.")]
        findings = {name: chosen(Finding, form.text(f"finding.{name}"), "Finding") for name in names}
        reasons = {name: form.text(f"reason.{name}") for name in names}
        deciding.arbitrate(caller_of(visit), request_id, form.whole("version"), findings=findings, reasons=reasons)
        return see_other(f"/console/requests/{request_id}", "arbitrated")


def _probes_of_dispute(found: Disagreement) -> tuple[list[_Shown], dict[str, _Shown]]:
    """Every picture that was searched; and for each disputed candidate the original of the probe that found it."""
    searches = {record.search_id: record for record in found.case.searches}
    enhanced = dict.fromkeys(
        (one.probe_id, one.enhancement_id) for one in searches.values() if one.enhancement_id is not None
    )
    searched = {one.probe_id for one in searches.values()}
    shown = _shown_probes([one for one in found.case.probes if one.probe_id in searched], tuple(enhanced))
    by_key = {one.key: one for one in shown}
    first = {one.candidate_id: searches[one.appearances[0].search_id].probe_id for one in found.disputed}
    return shown, {candidate: by_key[f"{probe}/original"] for candidate, probe in first.items()}


def _candidate_page(
    console: Console, visit: Visit, request_id: str, position: int, problem: LikenessError | None = None
) -> Response:
    caller = caller_of(visit)
    examining = console.desk.examining
    comparison = examining.comparison(caller, request_id)
    found = next((c for c in comparison.candidates if c.position == position), None)
    if found is None:
        raise NotFound("There is no such candidate.", advice="Go back to the list.")
    opened = examining.open(caller, request_id, found.candidate_id)
    if found.opened_at is None:  # the first opening is recorded, which makes a new version of the examination
        comparison = examining.comparison(caller, request_id)
    probes = _shown_probes(comparison.probes, comparison.enhanced)
    wanted = visit.request.query_params.get("probe", "")
    context: dict[str, Any] = {
        "comparison": comparison,
        "current": opened.candidate,
        "references": opened.reference_ids,
        "probes": probes,
        "probe": next((probe for probe in probes if probe.key == wanted), probes[0]),
        "landmarks": LANDMARKS,
        "features": tuple(FacialFeature),
        "kept": {name: visit.form.text(name) for name in visit.form.texts},
        "problem": problem,
        "previous": position - 1 if position > 1 else None,
        "following": position + 1 if position < len(comparison.candidates) else None,
        "next_open": _next_unjudged(comparison, position),
        "last_judged": _last_judged(comparison.candidates),
    }
    return console.page(visit, "compare.html", context, status_code=problem.http_status if problem else 200)


def _shown_probes(probes: Sequence[ProbeImage], enhanced: Sequence[tuple[str, str]]) -> list[_Shown]:
    """Every picture that was searched, the original of each probe first. `enhanced`: (probe, working copy)."""
    shown = []
    for number, probe in enumerate(probes, 1):
        name = f"Probe {number}: " if len(probes) > 1 else ""
        face = next((face for face in probe.faces if face.index == probe.face), None)
        size = f"{probe.original.width},{probe.original.height}"
        shown.append(_Shown(f"{probe.probe_id}/original", f"{name}original", _points(face) if face else "", size))
        copies = [copy for owner, copy in enhanced if owner == probe.probe_id]
        shown += [
            _Shown(f"{probe.probe_id}/{copy}", f"{name}working copy {n}", "", "", faces=True)
            for n, copy in enumerate(copies, 1)
        ]
    return shown


def _points(face: ProbeFace) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in face.landmarks)


def _next_unjudged(comparison: Comparison, after: int) -> int | None:
    """The next candidate without a judgement, from the place on and round."""
    unjudged = [c.position for c in comparison.candidates if c.adjudication is None]
    return next((position for position in unjudged if position > after), unjudged[0] if unjudged else None)


def _last_judged(candidates: Sequence[ComparedCandidate]) -> ComparedCandidate | None:
    judged = [candidate for candidate in candidates if candidate.adjudication is not None]
    return max(judged, key=lambda c: c.adjudication.judged_at if c.adjudication else c.position, default=None)


def _features(form: Form) -> tuple[FeatureRemark, ...]:
    """The checklist as it was filled in; features that were not marked are not in it. Raises InvalidRequest."""
    marked: Mapping[FacialFeature, str] = {
        feature: value for feature in FacialFeature if (value := form.text(f"feature.{feature.value}"))
    }
    return tuple(
        FeatureRemark(feature, chosen(Observation, value, "Feature"), form.text(f"remark.{feature.value}"))
        for feature, value in marked.items()
    )
