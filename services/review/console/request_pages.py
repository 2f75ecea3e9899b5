"""The queue, a new request, and a request as a whole with what may be done to it next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Response

from services.review.casework.flagged import FlaggedPicture, flagged
from services.review.casework.forms import choices
from services.review.console.context import Console, caller_of, see_other
from services.review.console.guard import Visit, visit_of
from services.review.model import Case, CaseState, Finding, OutcomeKind, Urgency
from services.review.partners import standing
from services.review.workflow import OPERATOR, SUPERVISOR, TURNAROUND, Action
from services.shared.errors import (
    AuditUnavailable,
    CallerError,
    DependencyUnavailable,
    ImageRefused,
    InvalidRequest,
    LikenessError,
    Overloaded,
)

if TYPE_CHECKING:
    from services.review.casework.looking import CaseRow, CaseView

_Visit = Annotated[Visit, Depends(visit_of)]

_DONE = frozenset({CaseState.RELEASED, CaseState.CLOSED, CaseState.WITHDRAWN, CaseState.RETURNED, CaseState.UNSUITABLE})
LABELS: Mapping[str, str] = {
    "images": "Pictures",
    "film": "Film",
    "source": "Where the picture comes from",
    "nature": "What kind of picture it is",
    "face_chosen_by": "Who chose the face",
    "case_reference": "Case reference",
    "offence": "Offence or occurrence",
    "purpose": "Policing purpose",
    "case_type": "Who the person is to the case",
    "necessity": "Necessity",
    "urgency": "Urgency",
    "watchlists": "Watchlists to search",
    "remarks": "Remarks",
}
_RETAIN = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Next:
    """The one step that a person would take now, and where."""

    title: str
    path: str


@dataclass(frozen=True, slots=True)
class FlaggedShown:
    """A picture that search has flagged, as a supervisor is shown it."""

    title: str
    picture: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the queue."""

    case: CaseRow
    next: Next | None
    is_open: bool

    def __getattr__(self, name: str) -> Any:
        return getattr(self.case, name)


_STEPS: Sequence[tuple[Action, str, str]] = (
    (Action.ACCEPT, "Triage", "#triage"),
    (Action.ALLOW_PROBE, "Decide on the probe", "#flagged"),
    (Action.ARBITRATE, "Decide", "/disagreement"),
    (Action.RELEASE, "Release", "#release"),
    (Action.CLOSE_KNOWN_ANSWER, "Release", "#release"),
    (Action.BEGIN_FIRST, "First review", "#review"),
    (Action.BEGIN_SECOND, "Second review", "#review"),
    (Action.SIGN_FIRST, "Go on comparing", "/compare"),
    (Action.SIGN_SECOND_AGREEING, "Go on comparing", "/compare"),
    (Action.SIGN_SECOND_DISAGREEING, "Go on comparing", "/compare"),
    (Action.SEARCH, "Search", "/probe#search"),
    (Action.ASSESS, "Assess", "/probe"),
    (Action.RECORD_OUTCOME, "Report the outcome", "#outcome"),
)


def next_step(request_id: str, state: CaseState, possible: Sequence[Action]) -> Next | None:
    """What comes first of what the person may do. A closed case needs nothing, although its outcome can be mended."""
    if state is CaseState.CLOSED:
        return None
    for action, title, where in _STEPS:
        if action in possible and not (state is CaseState.SEARCHED and action is Action.SEARCH):
            return Next(title, f"/console/requests/{request_id}{where}")
    return None


def routes(console: Console) -> APIRouter:
    router = console.router()
    _add_queue(router, console)
    _add_new(router, console)
    _add_request(router, console)
    _add_steps(router, console)
    return router


def _add_queue(router: APIRouter, console: Console) -> None:
    @router.get("/console/queue")
    def queue(visit: _Visit) -> Response:
        rows = [_row(row) for row in console.desk.looking.queue(caller_of(visit), with_finished=True)]
        mine = [row for row in rows if row.next is not None]
        rest = [row for row in rows if row.next is None]
        context = {
            "now": console.clock.now(),
            "mine": mine,
            "others": [row for row in rest if row.is_open],
            "done": [row for row in reversed(rest) if not row.is_open][:50],
            "overdue": sum(row.case.is_overdue and row.is_open for row in rows),
            "may_request": bool(visit.principal.roles & {"requester", "operator"}),
        }
        return console.page(visit, "queue.html", context)

    @router.get("/console/unsolved")
    def unsolved(visit: _Visit) -> Response:
        caller = caller_of(visit)
        rows = [row for row in console.desk.looking.queue(caller) if row.state is CaseState.UNSOLVED]
        views = [console.desk.looking.case(caller, row.request_id) for row in rows]
        return console.page(visit, "unsolved.html", {"views": views, "now": console.clock.now()})


def _row(row: CaseRow) -> Row:
    is_open = row.state not in _DONE and row.state is not CaseState.UNSOLVED
    return Row(row, next_step(row.request_id, row.state, row.possible), is_open)


def _add_new(router: APIRouter, console: Console) -> None:
    @router.get("/console/requests/new")
    def new_request(visit: _Visit) -> Response:
        return request_form(console, visit, {"urgency": Urgency.ROUTINE.value}, {})

    @router.post("/console/requests/new")
    def send_request(visit: _Visit) -> Response:
        texts = {name: values for name, values in visit.form.texts.items() if name in LABELS}
        kept = {**{name: visit.form.text(name) for name in LABELS}, "watchlists": visit.form.all("watchlists")}
        try:
            case = console.desk.intake.submit(
                caller_of(visit), texts, visit.form.files.get("files", ()), film=visit.form.film
            )
        except (InvalidRequest, ImageRefused) as error:
            return request_form(console, visit, kept, wrong_fields(error))
        except (AuditUnavailable, DependencyUnavailable, Overloaded) as error:
            return request_form(console, visit, kept, {}, problem=error)
        return see_other(f"/console/requests/{case.request_id}", "sent")


def request_form(
    console: Console,
    visit: Visit,
    values: Mapping[str, Any],
    errors: Mapping[str, str],
    *,
    is_planted: bool = False,
    problem: LikenessError | None = None,
) -> Response:
    """The form of a request, with what was filled in and what is wrong with it, or why it could not be taken now."""
    promised = {urgency: f"answered within {_hours(TURNAROUND[urgency])}" for urgency in Urgency}
    context = {
        "choices": choices(console.watchlists.current(), visit.principal.watchlists),
        "values": {**dict.fromkeys(LABELS, ""), "watchlists": (), **values},
        "errors": errors,
        "problem": problem,
        "labels": LABELS,
        "turnaround": promised,
        "is_planted": is_planted,
    }
    status = problem.http_status if problem else 422 if errors else 200
    return console.page(visit, "new_request.html", context, status_code=status)


def wrong_fields(error: CallerError) -> dict[str, str]:
    """What is wrong by field. Raises the error again where it names none."""
    fields = {str(field["field"]): _told(str(field["problem"])) for field in error.context.get("fields", ())}
    if not fields:
        raise error
    order = tuple(LABELS)  # as they stand on the page
    return dict(sorted(fields.items(), key=lambda item: order.index(item[0]) if item[0] in LABELS else len(order)))


def _told(problem: str) -> str:
    """The problem without the list of codes that a program is told of: the page offers the choices itself."""
    return "Required." if problem.startswith("Required.") else problem


def _hours(length: timedelta) -> str:
    hours = round(length.total_seconds() / 3600)
    return f"{hours} {'hour' if hours == 1 else 'hours'}" if hours < 48 else f"{hours // 24} days"


def _add_request(router: APIRouter, console: Console) -> None:
    @router.get("/console/requests/{request_id}")
    def request(visit: _Visit, request_id: str) -> Response:
        view = console.desk.looking.case(caller_of(visit), request_id)
        case = view.case
        context = {
            **case_context(view),
            "history": view.history,
            "is_examiner": _is_examining(view),
            "positives": sum(finding is Finding.POSSIBLE_MATCH for finding in case.decided.values()),
            "retain_until": (console.clock.now().date() + _RETAIN).isoformat(),
            "outcome_kinds": tuple(OutcomeKind),
            "may_see_probes": bool(visit.principal.roles & {OPERATOR, SUPERVISOR}),
            "may_disclose": case.release is not None and bool(visit.principal.roles & {OPERATOR, SUPERVISOR}),
            "may_approve": SUPERVISOR in visit.principal.roles,
            "packs": [one for one in case.disclosures if one.is_usable(console.clock.now())],
            "person_id": visit.principal.person_id,
        }
        return console.page(visit, "request.html", context)


def case_context(view: CaseView) -> dict[str, Any]:
    case = view.case
    return {
        "case": case,
        "possible": view.possible,
        "flagged": [_in_words(case, picture) for picture in flagged(case.searches)],
        "enquiries": standing(case.enquiries),
        "next": next_step(case.request_id, case.state, view.possible),
        "now": view.seen_at,
    }


def _in_words(case: Case, picture: FlaggedPicture) -> FlaggedShown:
    number = next(n for n, probe in enumerate(case.probes, 1) if probe.probe_id == picture.probe_id)
    what = "original" if picture.enhancement_id is None else "working copy"
    path = f"/console/requests/{case.request_id}/probes/{picture.probe_id}/{picture.enhancement_id or 'original'}.jpg"
    return FlaggedShown(f"Probe {number}, {what}", path, tuple(words for _, words in picture.flags))


def _is_examining(view: CaseView) -> bool:
    signing = {Action.SIGN_FIRST, Action.SIGN_SECOND_AGREEING, Action.SIGN_SECOND_DISAGREEING}
    return bool(signing & set(view.possible))


def _add_steps(router: APIRouter, console: Console) -> None:
    base = "/console/requests/{request_id}"
    desk = console.desk

    @router.post(base + "/triage")
    def triage(visit: _Visit, request_id: str) -> Response:
        form = visit.form
        is_accepted = form.text("decision") == "accept"
        decide = desk.triage.accept if is_accepted else desk.triage.send_back
        decide(caller_of(visit), request_id, form.whole("version"), form.text("reason"))
        return see_other(f"/console/requests/{request_id}", "accepted" if is_accepted else "returned")

    @router.post(base + "/unsuitable")
    def unsuitable(visit: _Visit, request_id: str) -> Response:
        form = visit.form
        desk.probes.call_unsuitable(caller_of(visit), request_id, form.whole("version"), form.text("why"))
        return see_other(f"/console/requests/{request_id}", "unsuitable")

    @router.post(base + "/withdraw")
    def withdraw(visit: _Visit, request_id: str) -> Response:
        desk.intake.withdraw(caller_of(visit), request_id, visit.form.whole("version"))
        return see_other(f"/console/requests/{request_id}", "withdrawn")

    @router.post(base + "/flagged")
    def flagged_probe(visit: _Visit, request_id: str) -> Response:
        form = visit.form
        is_allowed = form.text("decision") == "allow"
        decide = desk.flagged.allow if is_allowed else desk.flagged.refuse
        decide(caller_of(visit), request_id, form.whole("version"), form.text("reason"))
        return see_other(f"/console/requests/{request_id}", "probe-allowed" if is_allowed else "probe-refused")

    @router.post(base + "/release")
    def release(visit: _Visit, request_id: str) -> Response:
        form = visit.form
        desk.deciding.release(caller_of(visit), request_id, form.whole("version"), day(form.text("retain_until")))
        return see_other(f"/console/requests/{request_id}", "released")

    @router.post(base + "/outcome")
    def outcome(visit: _Visit, request_id: str) -> Response:
        form = visit.form
        kind = chosen(OutcomeKind, form.text("kind"), "What became of it")
        desk.deciding.record_outcome(caller_of(visit), request_id, form.whole("version"), kind, form.text("remarks"))
        return see_other(f"/console/requests/{request_id}", "outcome")

    @router.post(base + "/unsolved")
    def keep(visit: _Visit, request_id: str) -> Response:
        form = visit.form
        desk.retention.keep_unsolved(
            caller_of(visit),
            request_id,
            form.whole("version"),
            authority=form.text("authority"),
            reason=form.text("reason"),
            expires_on=day(form.text("expires_on")),
        )
        return see_other(f"/console/requests/{request_id}", "kept")

    @router.post(base + "/close")
    def close(visit: _Visit, request_id: str) -> Response:
        desk.retention.close(caller_of(visit), request_id, visit.form.whole("version"), visit.form.text("reason"))
        return see_other(f"/console/requests/{request_id}", "closed")


def day(text: str) -> date:
    """A day as a browser sends it. Raises InvalidRequest."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest("A date is missing or is none.", advice="Give it as year-month-day.") from error


def chosen(kind: type[Any], value: str, label: str) -> Any:
    """The member of an enumeration that was chosen. Raises InvalidRequest."""
    try:
        return kind(value)
    except ValueError as error:
        raise InvalidRequest(f"“{label}” has no such choice.", advice="Choose one of those offered.") from error
