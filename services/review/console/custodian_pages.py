"""Custodians: watchlists and agreements, review dates, flags of the gallery's checks, refused enrolments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from services.review.console.context import Console, caller_of, see_other
from services.review.console.guard import Visit, visit_of
from services.review.console.oversight import Oversight
from services.review.console.oversight_pages import require
from services.review.console.picture_pages import marked_for, stem
from services.review.console.turns import picture_turn
from services.shared.errors import DependencyUnavailable, Forbidden, InvalidRequest, NotFound
from services.shared.ids import is_id
from services.shared.watchlists import Agreement

_Visit = Annotated[Visit, Depends(visit_of)]
CUSTODIAN = "custodian"
_NEWEST = 50
_SHOWN = 100
# With their pictures, each of which is made and recorded as it is looked at.
_FLAGS_SHOWN = 20
_SOON_DAYS = 90
_REVIEWS_AHEAD = timedelta(days=30)


def routes(console: Console, oversight: Oversight) -> APIRouter:
    router = console.router()
    _add_watchlists(router, console, oversight)
    _add_reviews(router, console, oversight)
    _add_flags(router, console, oversight)
    return router


def _add_watchlists(router: APIRouter, console: Console, oversight: Oversight) -> None:
    @router.get("/console/watchlists")
    def lists(visit: _Visit) -> Response:
        require(visit, CUSTODIAN, "supervisor", "auditor")
        current = console.watchlists.current()
        today = console.clock.now().date()
        agreements, is_registry = _agreements(oversight, visit, current.agreements)
        shown = [
            (watchlist, [(one, standing(one, today), why) for one, why in agreements if one.watchlist == watchlist.id])
            for name in current.ids
            if (watchlist := current.get(name)) is not None
        ]
        context = {"watchlists": shown, "today": today, "is_registry": is_registry}
        return console.page(visit, "watchlists.html", context)

    @router.get("/console/refusals")
    def refusals(visit: _Visit) -> Response:
        require(visit, CUSTODIAN)
        found = {state: oversight.enrolments(visit.session.token, state) for state in ("refused", "quarantined")}
        refused = [enrolment for page in found.values() for enrolment in page["enrolments"]]
        by_reason = Counter((one["owner"], one["watchlist"], one["reason"]) for one in refused)
        context = {
            "counts": found["refused"]["counts"],
            "by_reason": by_reason.most_common(),
            "newest": sorted(refused, key=lambda one: str(one["accepted_at"]), reverse=True)[:_NEWEST],
        }
        return console.page(visit, "refusals.html", context)


def _agreements(
    oversight: Oversight, visit: Visit, configured: Sequence[Agreement]
) -> tuple[list[tuple[Agreement, str]], bool]:
    """The agreements that searches and enrolments are judged by, each with why it was last changed; those of the
    configuration where search does not answer."""
    try:
        found = oversight.agreements(visit.session.token)["agreements"]
    except (DependencyUnavailable, Forbidden):
        return [(one, "") for one in configured], False
    return [(_agreement(entry), _last_reason(entry["history"])) for entry in found], True


def _agreement(entry: Mapping[str, Any]) -> Agreement:
    return Agreement.model_validate({name: entry[name] for name in Agreement.model_fields})


def _last_reason(history: Sequence[Mapping[str, Any]]) -> str:
    if not history:
        return "of the configuration"
    last = history[-1]
    return f"{last['kind']} by {last['recorded_by']}, {last['recorded_by_force']}: {last['reason']}"


def standing(agreement: Agreement, today: date) -> tuple[str, str]:
    """How an agreement stands: a word, and the kind of mark that it gets."""
    if agreement.withdrawn_on is not None and agreement.withdrawn_on <= today:
        return "Withdrawn", "bad"
    if not agreement.is_in_force(today):
        return ("Expired", "bad") if agreement.expires_on <= today else ("Not begun", "warn")
    return ("Ends soon", "warn") if (agreement.expires_on - today).days <= _SOON_DAYS else ("In force", "good")


def _add_reviews(router: APIRouter, console: Console, oversight: Oversight) -> None:
    @router.get("/console/reviews")
    def reviews(visit: _Visit) -> Response:
        require(visit, CUSTODIAN)
        today = console.clock.now().date()
        found = oversight.reviews(visit.session.token, today + _REVIEWS_AHEAD, _SHOWN)
        rows = [(review, date.fromisoformat(review["due_on"]) <= today) for review in found["reviews"]]
        return console.page(visit, "reviews.html", {"found": found, "rows": rows, "today": today})

    @router.post("/console/reviews/{enrolment_id}")
    def decide(visit: _Visit, enrolment_id: str) -> Response:
        require(visit, CUSTODIAN)
        decision, reason = _decision(visit, enrolment_id, ("retain", "erase"))
        oversight.decide_review(visit.session.token, enrolment_id, decision, reason)
        return see_other("/console/reviews", "review-" + decision)


def _add_flags(router: APIRouter, console: Console, oversight: Oversight) -> None:
    @router.get("/console/flags")
    def flags(visit: _Visit) -> Response:
        require(visit, CUSTODIAN)
        found = oversight.flags(visit.session.token, _FLAGS_SHOWN)
        caller, see = caller_of(visit), console.desk.gallery_flags.pictures
        flags = [(flag, see(caller, flag)) for flag in found["flags"]]
        return console.page(visit, "flags.html", {"flags": flags, "has_more": bool(found["next"])})

    @router.get("/console/flags/{flag_id}/{name}")
    async def picture(visit: _Visit, flag_id: str, name: str) -> Response:
        """`<reference_id>.jpg`: one of the pictures that the flag is about."""
        return await picture_turn(visit.request, lambda: flagged_picture(visit, flag_id, stem(name, ".jpg")))

    def flagged_picture(visit: Visit, flag_id: str, reference_id: str) -> Response:
        require(visit, CUSTODIAN)
        if not is_id(flag_id):
            raise NotFound("There is no such flag.")
        flag = oversight.flag(visit.session.token, flag_id)
        return marked_for(console, visit, console.desk.gallery_flags.picture(caller_of(visit), flag, reference_id))

    @router.post("/console/flags/{flag_id}")
    def decide(visit: _Visit, flag_id: str) -> Response:
        require(visit, CUSTODIAN)
        decision, reason = _decision(visit, flag_id, ("dismissed", "acted"))
        oversight.decide_flag(visit.session.token, flag_id, decision, reason)
        return see_other("/console/flags", "flag-" + decision)


def _decision(visit: Visit, thing_id: str, allowed: tuple[str, str]) -> tuple[str, str]:
    """What was decided and why. Raises InvalidRequest."""
    decision = visit.form.text("decision")
    if decision not in allowed or not is_id(thing_id):
        raise InvalidRequest("There is no such decision.", advice="Choose one of those offered.")
    return decision, visit.form.text("reason")
