"""Auditors: the log, its proofs, samples, the transparency report."""

from __future__ import annotations

import re
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Response

from services.review.console.context import Console
from services.review.console.guard import Visit, visit_of
from services.review.console.oversight import Oversight
from services.shared.errors import Forbidden, InvalidRequest

_Visit = Annotated[Visit, Depends(visit_of)]
_PAGE = 50
_SAMPLE = 10
_LONGEST_QUERY = 200
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_MOST_MONTHS = 60
_FILTERS = ("activity", "activity_id", "case_reference", "person_id")


def routes(console: Console, oversight: Oversight) -> APIRouter:
    router = console.router()
    _add_auditor(router, console, oversight)
    _add_transparency(router, console, oversight)
    return router


def require(visit: Visit, *roles: str) -> None:
    """Raises Forbidden."""
    if not visit.principal.roles & set(roles):
        raise Forbidden(f"This page is for the role {' or '.join(roles)}.", advice="Ask your administrator.")


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

    @router.get("/console/statistics")
    def statistics(visit: _Visit) -> Response:
        """What the transparency report is made from, exactly: not for publication."""
        require(visit, "auditor", "supervisor")
        month = visit.request.query_params.get("month", "")[:7]
        found = oversight.statistics(visit.session.token, month)
        return console.page(visit, "statistics.html", {"found": found, "month": month})

    @router.get("/console/log/{sequence}")
    def entry(visit: _Visit, sequence: str) -> Response:
        require(visit, "auditor")
        if not sequence.isdecimal() or len(sequence) > 15:
            raise InvalidRequest("A position in the log is a whole number.", advice="Open an entry from the list.")
        found = oversight.log_entry(visit.session.token, int(sequence), "console")
        pretty = orjson.dumps(found["entry"], option=orjson.OPT_INDENT_2).decode()
        return console.page(visit, "log_entry.html", {"found": found, "pretty": pretty})


def _add_transparency(router: APIRouter, console: Console, oversight: Oversight) -> None:
    @router.get("/console/transparency")
    def transparency(visit: _Visit) -> Response:
        """What may be published, as it will be read."""
        require(visit, "auditor")
        months = _months(visit)
        found = oversight.transparency(visit.session.token, months)
        now = console.clock.now()
        context = {
            "found": found,
            "chosen": months,
            "query": "&".join(f"month={month}" for month in found["months"]),
            "is_unfinished": f"{now:%Y-%m}" in found["months"],
        }
        return console.page(visit, "transparency.html", context)

    @router.get("/console/transparency/likeness-transparency.zip")
    def files(visit: _Visit) -> Response:
        require(visit, "auditor")
        months = _months(visit)
        name = "-".join(("likeness-transparency", *sorted({months[0], months[-1]} if months else ())))
        headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
        content = oversight.transparency_files(visit.session.token, months)
        return Response(content, media_type="application/zip", headers=headers)


def _months(visit: Visit) -> list[str]:
    """The months that were ticked, in order. Raises InvalidRequest."""
    months = sorted(set(visit.request.query_params.getlist("month")))
    if not all(_MONTH.fullmatch(month) for month in months) or len(months) > _MOST_MONTHS:
        raise InvalidRequest("A month is a year and a month, as 2026-10.", advice="Choose from those offered.")
    return months
