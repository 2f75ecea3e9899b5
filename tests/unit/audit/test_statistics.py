"""Figures from the log: what is counted, what is withheld, and that anybody gets the same."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from typer.testing import CliRunner

from services.audit.statistics import gathering
from services.audit.statistics.aggregates import Aggregates, parse_aggregates
from services.audit.statistics.charts import CountRow, RateRow, count_chart, rate_chart
from services.audit.statistics.cli import counted, entries_of, transparency_app
from services.audit.statistics.gathering import Gatherer, quality_band
from services.audit.statistics.intervals import wilson
from services.audit.statistics.suppression import SMALLEST, PublishedTable, sums_of, suppressed
from services.audit.statistics.tables import REQUEST_SUMS, WHOLE, Table
from services.review.casework.intake import SUBMIT
from services.review.model import OutcomeKind
from services.review.workflow import Action
from tests.support.simulated_months import write_export


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("months"), months=2, requests=150)


@pytest.fixture(scope="module")
def aggregates(export: Path) -> Aggregates:
    return counted(export, None, None)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17: 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(count: int, total: int, low: float, high: float) -> None:
    rate = wilson(count, total)
    assert rate is not None
    assert (round(rate.low, 4), round(rate.high, 4)) == (low, high)
    assert rate.low <= rate.share <= rate.high


def test_no_rate_of_nothing_and_none_over_the_whole() -> None:
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def test_bands_meet_at_their_edges() -> None:
    assert [quality_band(value) for value in (None, 29.9, 30.0, 69.9, 70.0)] == [
        "not measured",
        "under 30",
        "30 to 50",
        "50 to 70",
        "70 and over",
    ]


def test_counts_are_those_of_the_log(export: Path, aggregates: Aggregates) -> None:
    """Counted here in another way: straight down the entries."""
    done: dict[str, list[dict[str, Any]]] = {}
    for entry in entries_of(export):
        if entry["phase"] == "DONE":
            done.setdefault(f"{entry['service']}.{entry['activity']}", []).append(dict(entry))
    names = sum(entry["details"]["potential_names"] != "0" for entry in done["review.release"])
    whole = aggregates.table("requests by month").rows[WHOLE]
    assert whole["released"] == len(done["review.release"])
    assert whole["potential name"] == names
    assert whole["unsuitable"] == len(done["review.call_unsuitable"])
    searches = aggregates.table("searches by month").rows[WHOLE]
    assert searches["searches"] == len(done["search.search"])
    assert aggregates.months == ("2026-10", "2026-11")
    assert [one["threshold"][:4] for one in aggregates.thresholds][:2] == ["0.41", "0.43"]


def _entry(activity: str, phase: str, activity_id: str, details: dict[str, str], *objects: str) -> dict[str, Any]:
    return {
        "service": "review",
        "activity": activity,
        "phase": phase,
        "activity_id": activity_id,
        "actor": {"force": "northshire", "person_id": "p", "roles": []},
        "purpose": "prevention_and_detection",
        "recorded_at": "2026-10-05T10:00:00.000Z",
        "objects": list(objects),
        "details": details,
    }


def test_what_is_refused_planted_or_unknown_counts_nowhere() -> None:
    told = {"offence": "Burglary ", "watchlists": "op_liberal,custody"}
    gathered = Gatherer()
    for entry in (
        _entry("submit_request", "INTENT", "a", told),
        _entry("submit_request", "DONE", "a", {}, "request:1"),
        _entry("submit_request", "INTENT", "b", told),
        _entry("submit_request", "DONE", "b", {"planted": "known answer"}, "request:2"),
        _entry("submit_request", "REFUSED", "c", {"reason": "forbidden"}, "request:3"),
        _entry("release", "INTENT", "d", {}, "request:1"),
        _entry("release", "FAILED", "d", {"potential_names": "1"}, "request:1"),
        _entry("something_new", "DONE", "e", {}, "request:1"),
        _entry("release", "DONE", "f", {"potential_names": "1"}, "request:99"),
    ):
        gathered.take(entry)
    assert set(gathered.requests) == {"1", "2"}
    first = gathered.requests["1"]
    assert (first.offence, first.watchlists, first.ended, first.has_name) == (
        "burglary",
        "custody + op_liberal",
        "",
        False,
    )
    assert gathered.requests["2"].is_planted


def _random_tables(draw: random.Random) -> Iterator[list[Table]]:
    """Tables of the same facts by two dimensions, small enough to have many small counts."""
    columns = ("decided", "released", "unsuitable", "potential name", "no potential name")
    for _ in range(8):
        facts = [(draw.choice("abcd"), draw.choice("xyz"), draw.choice("unp")) for _ in range(draw.randrange(60))]
        tables = []
        for place in (0, 1):
            rows = {category: dict.fromkeys(columns, 0) for category in [WHOLE, *sorted({f[place] for f in facts})]}
            for fact in facts:
                told = {
                    "u": ("unsuitable",),
                    "n": ("released", "no potential name"),
                    "p": ("released", "potential name"),
                }
                for row in (rows[WHOLE], rows[fact[place]]):
                    for column in ("decided", *told[fact[2]]):
                        row[column] += 1
            tables.append(Table(f"by {place}", REQUEST_SUMS, rows))
        yield tables


def _reach(tables: list[PublishedTable]) -> dict[tuple[str, str], tuple[float, float]]:
    """Between what bounds everything published leaves each withheld count: linear programming, as an attacker would."""
    names = sorted({_name(table, cell) for table in tables for cell in _withheld(table)})
    if not names:
        return {}
    place = {name: number for number, name in enumerate(names)}
    left, right = [], []
    for table in tables:
        for whole, parts in sums_of(table):
            row, constant = np.zeros(len(names)), 0.0
            for cell, sign in ((whole, -1.0), *((part, 1.0) for part in parts)):
                counted = table.rows[cell[0]][cell[1]]
                if counted is None:
                    row[place[_name(table, cell)]] += sign
                else:
                    constant += sign * counted
            left.append(row)
            right.append(-constant)
    bounds = []
    for number in range(len(names)):
        ends = []
        for sign in (1, -1):
            aim = np.zeros(len(names))
            aim[number] = sign
            solved = linprog(aim, A_eq=np.array(left), b_eq=np.array(right), bounds=(0, None))
            ends.append(np.inf if solved.status == 3 else float(solved.x[number]))
        bounds.append((ends[0], ends[1]))
    return dict(zip(names, bounds, strict=True))


def _name(table: PublishedTable, cell: tuple[str, str]) -> tuple[str, str]:
    return ("" if cell[0] == WHOLE else f"{table.name}/{cell[0]}", cell[1])


def _withheld(table: PublishedTable) -> list[tuple[str, str]]:
    return [(name, column) for name, row in table.rows.items() for column, count in row.items() if count is None]


def test_no_small_count_is_published_and_none_can_be_worked_out() -> None:
    seen = 0
    for tables in _random_tables(random.Random(3)):
        published = suppressed(tables)
        for table, original in zip(published, tables, strict=True):
            for name, row in table.rows.items():
                for column, shown in row.items():
                    assert shown is None or shown == 0 or shown >= SMALLEST
                    assert shown is None or shown == original.rows[name][column]
        small = {
            _name(table, cell)
            for table, original in zip(published, tables, strict=True)
            for cell in _withheld(table)
            if original.rows[cell[0]][cell[1]] < SMALLEST
        }
        for place, (low, high) in _reach(published).items():
            if place in small:
                assert high - low >= 1, f"{place} is told by the others"
                seen += 1
    assert seen > 25


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(transparency_app, list(map(str, arguments)), env={"COLUMNS": "200"})


def test_what_is_no_month_and_what_is_no_report_is_said(export: Path, tmp_path: Path) -> None:
    no_month = _run("report", tmp_path / "out", "--export", export, "--month", "October")
    assert no_month.exit_code == 2
    assert "October is no month: write it as 2026-10" in no_month.output
    no_report = _run("check", tmp_path)
    assert no_report.exit_code == 2
    assert "aggregates.json, report.html is not there" in no_report.output


def test_a_report_is_made_and_checked_by_anybody(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    made = _run("report", out, "--export", export, "--month", "2026-10")
    assert made.exit_code == 0, made.output
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF-")
    page = (out / "report.html").read_text("utf-8")
    assert "October 2026" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "<script" not in page
    checked = _run("check", out, "--export", export)
    assert checked.exit_code == 0, checked.output
    assert "4. The log gives these aggregates: passed" in checked.output

    value = json.loads((out / "aggregates.json").read_bytes())
    table = next(one for one in value["tables"] if one["name"] == "searches by month")
    table["rows"][WHOLE]["searches"] += 5
    table["rows"]["2026-10"]["searches"] += 5
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    (spoilt / "aggregates.json").write_text(json.dumps(value))
    (spoilt / "report.html").write_text(page)
    assert "3. FAILED" in _run("check", spoilt).output
    table["rows"]["2026-10"]["searches"] += 1
    (spoilt / "aggregates.json").write_text(json.dumps(value))
    assert "1. FAILED" in _run("check", spoilt).output
    value["log"]["signature"] = "00" * 64
    table["rows"]["2026-10"]["searches"] -= 1
    (spoilt / "aggregates.json").write_text(json.dumps(value))
    assert "2. FAILED" in _run("check", spoilt).output
    entries = export.read_bytes().replace(b'"northshire"', b'"northshyre"', 1)
    other = tmp_path / "other.jsonl"
    other.write_bytes(entries)
    refused = _run("check", out, "--export", other)
    assert refused.exit_code == 1


def test_aggregates_read_back_are_the_same(aggregates: Aggregates) -> None:
    assert parse_aggregates(aggregates.document()).document() == aggregates.document()


def test_the_words_are_those_of_casework() -> None:
    """The log's activities are another service's words; when they change there, they are to change here."""
    assert gathering.SUBMIT == SUBMIT
    for action in ("search", "release", "record_outcome", "assess", "return", "withdraw", "close_known_answer"):
        assert action in {each.value for each in Action}
    assert set(gathering.ENDINGS) <= {each.value for each in Action}
    assert {kind.value for kind in OutcomeKind} >= gathering.FALSE_LEADS


def test_what_people_wrote_is_text_in_charts() -> None:
    """They stand in pages as they are drawn."""
    written = "<script>1</script>\"'"
    for drawn in (count_chart([CountRow(written, 5)], written), rate_chart([RateRow(written, None, written)], written)):
        assert "<script" not in drawn
        assert drawn.count("&lt;script&gt;") >= 2
