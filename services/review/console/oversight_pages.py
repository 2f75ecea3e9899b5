"""Custodians: watchlists, agreements, review dates, refused enrolments. Auditors: the log, its proofs, samples."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Response

from services.review.console.context import Console
from services.review.console.guard import Visit, visit_of
from services.review.console.oversight import Oversight
from services.shared.errors import Forbidden, InvalidRequest
from services.shared.watchlists import Agreement

_Visit = Annotated[Visit, Depends(visit_of)]
_PAGE = 50
_SAMPLE = 10
_LONGEST_QUERY = 200
_SOON_DAYS = 90
_FILTERS = ("activity", "activity_id", "case_reference", "person_id")


def routes(console: Console, oversight: Oversight) -> APIRouter:
    router = console.router()
    _add_custodian(router, console, oversight)
    _add_auditor(router, console, oversight)
    return router


def require(visit: Visit, *roles: str) -> None:
    """Raises Forbidden."""
    if not visit.principal.roles & set(roles):
        raise Forbidden(f"This page is for the role {' or '.join(roles)}.", advice="Ask your administrator.")


def _add_custodian(router: APIRouter, console: Console, oversight: Oversight) -> None:
    @router.get("/console/watchlists")
    def lists(visit: _Visit) -> Response:
        require(visit, "custodian", "supervisor", "auditor")
        current = console.watchlists.current()
        today = console.clock.now().date()
        shown = [
            (watchlist, [(one, standing(one, today)) for one in current.agreements if one.watchlist == watchlist.id])
            for name in current.ids
            if (watchlist := current.get(name)) is not None
        ]
        return console.page(visit, "watchlists.html", {"watchlists": shown, "today": today})

    @router.get("/console/refusals")
    def refusals(visit: _Visit) -> Response:
        require(visit, "custodian")
        found = {state: oversight.enrolments(visit.session.token, state) for state in ("refused", "quarantined")}
        refused = [enrolment for page in found.values() for enrolment in page["enrolments"]]
        by_reason = Counter((one["owner"], one["watchlist"], one["reason"]) for one in refused)
        context = {
            "counts": found["refused"]["counts"],
            "by_reason": by_reason.most_common(),
            "newest": sorted(refused, key=lambda one: str(one["accepted_at"]), reverse=True)[:_PAGE],
        }
        return console.page(visit, "refusals.html", context)


def standing(agreement: Agreement, today: date) -> tuple[str, str]:
    """How an agreement stands: a word, and the kind of mark that it gets."""
    if agreement.withdrawn_on is not None and agreement.withdrawn_on <= today:
        return "Withdrawn", "bad"
    if not agreement.is_in_force(today):
        return ("Expired", "bad") if agreement.expires_on <= today else ("Not begun", "warn")
    return ("Ends soon", "warn") if (agreement.expires_on - today).days <= _SOON_DAYS else ("In force", "good")


def _add_auditor(router: APIRouter, console: Console, oversight: Oversight) -> None:
    @router.get("/console/log")
    def log(visit: _Visit) -> Response:
        require(visit, "auditor")
        query = visit.request.query_params
        wanted: dict[str, Any] = {name: query[name][:_LONGEST_QUERY] for name in _FILTERS if query.get(name)}
        before = query.get("before", "")
        if before.isdecimal():
            wanted["before"] = before
        page = oversight.log_page(visit.session.token, {**wanted, "limit": _PAGE, "reason": "console"})
        context = {
            "page": page,
            "filters": {name: query.get(name, "") for name in _FILTERS},
            "checkpoint": oversight.checkpoint(visit.session.token),
        }
        return console.page(visit, "log.html", context)

    @router.get("/console/log/sample")
    def sample(visit: _Visit) -> Response:
        """Searches drawn by a seed of the auditor's own, so that neither the platform nor its people choose them."""
        require(visit, "auditor")
        seed = visit.request.query_params.get("seed", "")[:_LONGEST_QUERY].strip()
        drawn = oversight.sample(visit.session.token, seed, _SAMPLE) if seed else None
        return console.page(visit, "sample.html", {"seed": seed, "drawn": drawn})

    @router.get("/console/log/{sequence}")
    def entry(visit: _Visit, sequence: str) -> Response:
        require(visit, "auditor")
        if not sequence.isdecimal() or len(sequence) > 15:
            raise InvalidRequest("A position in the log is a whole number.", advice="Open an entry from the list.")
        found = oversight.log_entry(visit.session.token, int(sequence), "console")
        pretty = orjson.dumps(found["entry"], option=orjson.OPT_INDENT_2).decode()
        return console.page(visit, "log_entry.html", {"found": found, "pretty": pretty})
