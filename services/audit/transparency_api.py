"""The transparency report over REST: what of it may be published, to look at and as the files that are."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, StringConstraints

from services.audit.reading import AuditReading
from services.audit.statistics.aggregates import Aggregates
from services.audit.statistics.report import charts, headline, period, render_archive
from services.audit.statistics.suppression import SMALLEST
from services.audit.statistics.tables import WHOLE

_Month = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
_Months = Annotated[list[_Month] | None, Query(max_length=60, description="As 2026-10; all when not given.")]
_Reason = Annotated[str, Query(max_length=200, description="Why the log is read; recorded with the reading.")]


class LineView(BaseModel):
    """A line of the report's summary; a rate is in words with its denominator and interval."""

    name: str
    value: str


class ChartView(BaseModel):
    title: str
    svg: str
    caption: str


class RowView(BaseModel):
    """`counts` by the table's columns; null where a count is withheld."""

    category: str
    counts: list[int | None]


class TableView(BaseModel):
    """The first row is the whole."""

    name: str
    columns: list[str]
    rows: list[RowView]


class PublishedThresholdView(BaseModel):
    watchlist: str
    threshold: str
    first_used_on: str


class TransparencyView(BaseModel):
    """What may be published of these months: no small count, nor anything that one could be worked out from."""

    period: str
    months: list[str]
    known_months: list[str]
    smallest: int = Field(description="The smallest count that is published, but for 0.")
    headline: list[LineView]
    charts: list[ChartView]
    tables: list[TableView]
    thresholds: list[PublishedThresholdView]
    checkpoint: dict[str, Any] = Field(description="Of the entries that were counted, signed.")


def add_transparency(router: APIRouter, reading: AuditReading, caller: Any) -> None:
    @router.get("/transparency")
    def transparency(reader: caller, month: _Months = None, reason: _Reason = "") -> TransparencyView:
        """The transparency report as figures. Reading it is recorded."""
        made, known = reading.transparency(reader, sorted(set(month or ())), reason)
        return _view(made, known)

    @router.get("/transparency/files", response_class=Response)
    def files(reader: caller, month: _Months = None, reason: _Reason = "") -> Response:
        """The three files that are published together, as a ZIP; `likeness transparency check` reads them."""
        made, _ = reading.transparency(reader, sorted(set(month or ())), reason)
        return Response(render_archive(made), media_type="application/zip")


def _view(made: Aggregates, known: tuple[str, ...]) -> TransparencyView:
    head = made.checkpoint
    return TransparencyView(
        period=period(made.months),
        months=list(made.months),
        known_months=list(known),
        smallest=SMALLEST,
        headline=[LineView(name=name, value=value) for name, value in headline(made)],
        charts=[ChartView(title=one.title, svg=one.svg, caption=one.caption) for one in charts(made)],
        tables=[
            TableView(
                name=table.name,
                columns=list(table.rows[WHOLE]),
                rows=[RowView(category=name, counts=list(row.values())) for name, row in table.rows.items()],
            )
            for table in made.tables
        ],
        thresholds=[PublishedThresholdView.model_validate(dict(one)) for one in made.thresholds],
        checkpoint={"checkpoint": head.body(), "signature": head.signature.hex()},
    )
