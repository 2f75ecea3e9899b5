"""What tables tell of one another: the same requests stand in several, and what one withholds no other gives away."""

from __future__ import annotations

from typing import Any, cast

import pytest

from services.audit.ports import LogStore
from services.audit.statistics.aggregates import Aggregates, published
from services.audit.statistics.gathering import Gatherer, RequestFact
from services.audit.statistics.report import charts, headline
from services.audit.statistics.tables import BY_MONTH, OUTCOMES, POTENTIAL_NAMES, RECEIVED, WHOLE
from services.audit.statistics.unit_figures import UnitStatistics
from services.audit.verification import Checkpoint

MONTHS = [f"2026-{month:02d}" for month in range(1, 13)]


def _decided(*ends: tuple[str, str, str, int]) -> Aggregates:
    """A report of requests, as (month, force, how they ended, how many)."""
    gathered = Gatherer()
    for month, force, end, count in ends:
        for _ in range(count):
            fact = RequestFact(month, force, "prevention_and_detection", "burglary", "custody")
            fact.ended, fact.has_name = ("unsuitable" if end == "unsuitable" else "released"), end == "named"
            gathered.requests[str(len(gathered.requests))] = fact
    return published(gathered, MONTHS, cast(Checkpoint, None), {})


def test_which_rows_there_are_is_not_told_where_the_whole_is_withheld() -> None:
    """Twelve requests in twelve months are one in each, whatever is withheld of them."""
    made = _decided(*((month, "northshire", "named", 1) for month in MONTHS))
    assert made.table(RECEIVED).rows[WHOLE]["decided"] == 12
    assert list(made.table(BY_MONTH).rows) == [WHOLE]
    for table in made.tables:
        if next(iter(table.rows[WHOLE].values())) is None:
            assert list(table.rows) == [WHOLE], table.name
    assert charts(made)
    assert ("Requests decided", "withheld") in headline(made)


@pytest.mark.parametrize(("unsuitable", "names"), [(2, None), (6, 18)])
def test_how_many_names_there_were_is_withheld_in_both_tables_or_in_none(unsuitable: int, names: int | None) -> None:
    """18 names of 20 requests say that two ended without one, and the row that is withheld, in which force."""
    made = _decided(
        ("2026-10", "northshire", "named", 8),
        ("2026-10", "northshire", "unsuitable", unsuitable),
        ("2026-10", "eastmoor", "named", 10),
        ("2026-10", "eastmoor", "unsuitable", 0 if names is None else 5),
    )
    assert made.table(BY_MONTH).rows[WHOLE]["potential name"] == names
    assert made.table(OUTCOMES).rows[WHOLE][POTENTIAL_NAMES] == names
    assert (list(made.table(OUTCOMES).rows) == [WHOLE]) is (names is None)
    told = dict(headline(made))
    assert (told["False leads, of potential names with a known outcome"] == "withheld") is (names is None)


class EmptyLog:
    def size(self) -> int:
        return 0


def _entry(activity: str, details: dict[str, str]) -> dict[str, Any]:
    return {
        "service": "review",
        "activity": activity,
        "activity_id": activity,
        "phase": "DONE",
        "actor": {"force": "northshire"},
        "purpose": "prevention_and_detection",
        "objects": ["request:1"],
        "details": details,
        "recorded_at": "2026-10-01T09:00:00.000Z",
    }


def test_a_planted_probe_moves_a_supervisors_figures_like_any_other_until_it_is_closed() -> None:
    """Who sees a request come in that no figure counts knows that it is planted, and may be asked to judge it."""
    statistics = UnitStatistics(cast(LogStore, EmptyLog()))
    statistics._gathered.take(_entry("submit_request", {"planted": "known answer"}))
    open_figures = statistics.figures([], "northshire")
    assert (open_figures.requests.received, open_figures.requests.decided) == (1, 0)
    statistics._gathered.take(_entry("close_known_answer", {"state": "closed"}))
    closed = statistics.figures([], "northshire")
    assert (closed.requests.received, closed.requests.decided) == (0, 0)
