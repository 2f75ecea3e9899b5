"""The transparency report from published aggregates: one self-contained HTML page and an A4 PDF."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from services.audit.statistics.aggregates import Aggregates
from services.audit.statistics.charts import CountRow, RateRow, count_chart, rate_chart, rate_text
from services.audit.statistics.gathering import FALSE_LEADS
from services.audit.statistics.intervals import Rate, wilson
from services.audit.statistics.suppression import SMALLEST, PublishedTable
from services.audit.statistics.tables import (
    BY_MONTH,
    BY_QUALITY,
    NOT_KNOWN,
    OUTCOMES,
    POTENTIAL_NAMES,
    RECEIVED,
    REFUSALS,
    SEARCHES_BY_MONTH,
    WHOLE,
)
from services.shared.errors import ConfigurationError

AGGREGATES, PAGE, PAPER = "aggregates.json", "report.html", "report.pdf"
WITHHELD = "withheld"
DASH = "\N{EN DASH}"  # the same in a narrow column
NOTHING = "nothing counted"
ALL_LABEL = "all requests"
_ENDS = "Requests received in the period and decided since."
_MOST_ROWS = 16  # of one chart; the table beside it has them all


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    svg: str
    caption: str


def headline(aggregates: Aggregates) -> list[tuple[str, str]]:
    """What the unit reports first, each with its denominator."""
    requests, searches = _whole(aggregates, BY_MONTH), _whole(aggregates, SEARCHES_BY_MONTH)
    return [
        ("Requests received", _shown(_whole(aggregates, RECEIVED)["received"])),
        ("Requests decided", _shown(requests["decided"])),
        ("Released with a potential name", _rate_shown(requests, "potential name", "released")),
        ("Returned as unsuitable", _rate_shown(requests, "unsuitable", "decided")),
        ("False leads, of potential names with a known outcome", _false_leads(aggregates)),
        ("Searches answered", _shown(searches["searches"])),
        ("Searches refused by policy or rule", _shown(_whole(aggregates, REFUSALS)["refused searches"])),
    ]


def charts(aggregates: Aggregates) -> list[Chart]:
    made = [
        _rates(aggregates, BY_QUALITY, "Potential names by quality of the best probe"),
        _rates(aggregates, "requests by offence", "Potential names by offence"),
        _rates(aggregates, "requests by force", "Potential names by requesting force"),
        _ends(aggregates),
        _counts(aggregates, OUTCOMES, POTENTIAL_NAMES, "What became of potential names"),
        _counts(aggregates, "searches by purpose", "searches", "Searches by purpose"),
        _counts(aggregates, REFUSALS, "refused searches", "Why searches were refused"),
    ]
    if len(aggregates.months) > 1:
        made.insert(1, _counts(aggregates, BY_MONTH, "decided", "Requests by month"))
        made.insert(2, _rates(aggregates, BY_MONTH, "Potential names by month"))
    return [chart for chart in made if chart is not None]


def render_html(aggregates: Aggregates) -> str:
    """The page; the same aggregates always give the same bytes, so that anybody can make it again and compare."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_resource("report.html.j2")).render(**_content(aggregates)) + "\n"


def render_pdf(aggregates: Aggregates) -> bytes:
    """The same as A4 pages."""
    import typst  # noqa: PLC0415 - takes a moment, and only this needs it

    content = _content(aggregates)
    content["charts"] = [{"title": one.title, "svg": one.svg, "caption": one.caption} for one in content["charts"]]
    try:
        pdf: bytes = typst.compile(
            _resource("report.typ").encode(),
            sys_inputs={"content": json.dumps(content)},
            font_paths=[],
            ignore_system_fonts=True,
        )
    except typst.TypstError as error:
        raise ConfigurationError(
            f"the PDF cannot be set: {error}", advice="Report this with the aggregates."
        ) from error
    return pdf


def render_archive(aggregates: Aggregates) -> bytes:
    """The three files that are published together, as a ZIP."""
    out = io.BytesIO()
    contents = {
        PAGE: render_html(aggregates).encode(),
        PAPER: render_pdf(aggregates),
        AGGREGATES: aggregates.document(),
    }
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _content(aggregates: Aggregates) -> dict[str, Any]:
    head = aggregates.checkpoint
    return {
        "period": period(aggregates.months),
        "headline": headline(aggregates),
        "charts": charts(aggregates),
        "tables": [_printed(table) for table in aggregates.tables],
        "thresholds": [dict(one) for one in aggregates.thresholds],
        "smallest": SMALLEST,
        "log_id": head.log_id,
        "entries": f"{head.tree_size:,}",
        "root": head.root_hash.hex(),
        "checkpoint_at": head.created_at,
        "key_id": head.key_id,
        "digest": hashlib.sha256(aggregates.document()).hexdigest(),
    }


def period(months: tuple[str, ...]) -> str:
    if not months:
        return "no month"
    return _month_name(months[0]) if len(months) == 1 else f"{_month_name(months[0])} to {_month_name(months[-1])}"


def _month_name(month: str) -> str:
    names = (
        "January February March April May June July August September October November December".split()  # noqa: SIM905
    )
    return f"{names[int(month[5:7]) - 1]} {month[:4]}"


def _rates(aggregates: Aggregates, name: str, title: str) -> Chart | None:
    table = aggregates.table(name)
    if table.rows[WHOLE]["decided"] == 0:
        return None
    rows = [
        RateRow(ALL_LABEL if category == WHOLE else category, *_rate(row, "potential name", "released"))
        for category, row in list(table.rows.items())[:_MOST_ROWS]
    ]
    caption = "Share of released requests with a potential name, its 95 % Wilson interval, and of how many."
    return Chart(title, rate_chart(rows, title), caption)


def _ends(aggregates: Aggregates) -> Chart | None:
    row = _whole(aggregates, BY_MONTH)
    if row["decided"] == 0:
        return None
    names = ("potential name", "no potential name", "unsuitable")
    title = "How requests ended"
    return Chart(title, count_chart([CountRow(name, row[name]) for name in names], title), _ENDS)


def _counts(aggregates: Aggregates, name: str, column: str, title: str) -> Chart | None:
    table = aggregates.table(name)
    rows = [
        CountRow(category.replace("_", " "), row[column]) for category, row in table.rows.items() if category != WHOLE
    ]
    return (
        Chart(title, count_chart(rows[:_MOST_ROWS], title), f"{column.capitalize()} of the period.") if rows else None
    )


def _rate(row: Mapping[str, int | None], part: str, whole: str) -> tuple[Rate | None, str]:
    counted, total = row[part], row[whole]
    if counted is None or total is None:
        return None, WITHHELD
    rate = wilson(counted, total)
    return rate, "" if rate else NOTHING


def _false_leads(aggregates: Aggregates) -> str:
    """Worked out from the published outcomes alone, so that it tells no more than they do."""
    rows = aggregates.table(OUTCOMES).rows
    counts = {category: row[POTENTIAL_NAMES] for category, row in rows.items()}
    known = _difference(counts[WHOLE], counts.get(NOT_KNOWN, 0))
    false = [counts.get(kind, 0) for kind in sorted(FALSE_LEADS)]
    if known is None or any(one is None for one in false):
        return WITHHELD
    rate = wilson(sum(one or 0 for one in false), known)
    return rate_text(rate) if rate else NOTHING


def _difference(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else whole - part


def _rate_shown(row: Mapping[str, int | None], part: str, whole: str) -> str:
    rate, note = _rate(row, part, whole)
    return rate_text(rate) if rate else note


def _whole(aggregates: Aggregates, name: str) -> Mapping[str, int | None]:
    return aggregates.table(name).rows[WHOLE]


def _shown(counted: int | None) -> str:
    return WITHHELD if counted is None else f"{counted:,}"


def _printed(table: PublishedTable) -> dict[str, Any]:
    columns = list(table.rows[WHOLE])
    return {
        "name": table.name,
        "columns": columns,
        "rows": [
            {
                "category": category.replace("_", " "),
                "cells": [DASH if row[c] is None else f"{row[c]:,}" for c in columns],
            }
            for category, row in table.rows.items()
        ],
    }


def _resource(name: str) -> str:
    return resources.files("services.audit.statistics").joinpath(name).read_text("utf-8")
