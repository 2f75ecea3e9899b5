"""Figures for those who oversee: the same log, exact, each force for itself, and read as it grows."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from services.audit.adapters.sql_log_store import SqlLogStore
from services.audit.ports import EntryFilter
from services.audit.reading import AuditReading, export_lines
from services.audit.statistics.aggregates import Aggregates
from services.audit.statistics.cli import counted, entries_of
from services.audit.statistics.report import AGGREGATES, PAGE, PAPER, render_archive
from services.audit.statistics.tables import WHOLE
from services.audit.statistics.unit_figures import RequestFigures, UnitFigures, UnitStatistics
from services.shared.clock import SystemClock
from services.shared.errors import Forbidden
from services.shared.tokens import Principal
from tests.support.simulated_months import write_export
from tests.unit.audit.builders import local_log, sqlite_store, statement


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("figures"), months=2, requests=120)


@pytest.fixture(scope="module")
def store(export: Path) -> Iterator[SqlLogStore]:
    opened = sqlite_store(export.with_name("audit.sqlite"))
    yield opened
    opened.close()


def _all(figures: UnitFigures) -> list[RequestFigures]:
    return [figures.requests, *(row for rows in figures.requests_by.values() for row in rows)]


def test_the_figures_are_those_of_the_report_where_the_report_shows_them(export: Path, store: SqlLogStore) -> None:
    published: Aggregates = counted(export, None, None)
    figures = UnitStatistics(store).figures([], None)
    whole = published.table("requests by month").rows[WHOLE]
    rate = figures.requests.potential_name
    assert rate is not None
    assert (figures.requests.decided, figures.requests.released) == (whole["decided"], whole["released"])
    assert (rate.count, rate.total) == (whole["potential name"], whole["released"])
    assert rate.low < rate.share < rate.high
    assert figures.searches == published.table("searches by month").rows[WHOLE]["searches"]
    assert figures.known_months == published.months
    assert [one.stated for one in figures.thresholds] == [one["threshold"] for one in published.thresholds]
    shown = {name: row["decided"] for name, row in published.table("requests by force").rows.items()}
    assert all(shown.get(row.category, row.decided) == row.decided for row in figures.requests_by["force"])


def test_what_is_counted_once_adds_up(store: SqlLogStore) -> None:
    figures = UnitStatistics(store).figures([], None)
    for name, rows in figures.requests_by.items():
        total = sum(row.received for row in rows)
        assert total > figures.requests.received if name == "watchlist" else total == figures.requests.received, name
    assert all(row.released <= row.decided <= row.received for row in _all(figures))
    for name, shares in figures.searches_by.items():
        assert name == "watchlist" or sum(one.count for one in shares) == figures.searches


def test_months_and_forces_are_parts_of_the_whole(store: SqlLogStore) -> None:
    statistics = UnitStatistics(store)
    whole = statistics.figures([], None)
    by_month = [statistics.figures([month], None).requests.received for month in whole.known_months]
    assert sum(by_month) == whole.requests.received
    forces = [row.category for row in whole.requests_by["force"]]
    by_force = [statistics.figures([], force) for force in forces]
    assert sum(one.requests.received for one in by_force) == whole.requests.received
    assert [[row.category for row in one.requests_by["force"]] for one in by_force] == [[force] for force in forces]
    nowhere = statistics.figures(["1999-01"], None)
    assert (nowhere.requests.received, nowhere.requests.potential_name, nowhere.false_leads) == (0, None, None)


def test_a_supervisor_sees_the_own_force_and_an_operator_nothing(tmp_path: Path) -> None:
    with local_log(tmp_path) as opened:
        for number in range(3):
            for phase in ("INTENT", "DONE"):
                opened.log.append(statement(number, phase=phase))
        reading = AuditReading(opened.log, opened.store, SystemClock())

        def seen(force: str, role: str) -> UnitFigures:
            return reading.statistics(Principal("p", force, frozenset({role}), frozenset()), [], "monthly meeting")

        assert (seen("northshire", "supervisor").force, seen("northshire", "supervisor").searches) == ("northshire", 3)
        assert seen("eastmoor", "supervisor").searches == 0
        assert [seen("eastmoor", role).searches for role in ("auditor", "inspector")] == [3, 3]
        opened.log.append(statement(4, phase="DONE"))
        assert seen("eastmoor", "auditor").searches == 4, "it follows the log"
        with pytest.raises(Forbidden):
            seen("northshire", "operator")
        newest = opened.store.page(EntryFilter(activity="audit_statistics"), opened.log.size, 3)
        assert [entry.facts()["phase"] for entry in newest] == ["REFUSED", "DONE", "INTENT"]
        assert newest[2].facts()["details"]["reason"] == "monthly meeting"


def test_the_report_of_a_running_service_is_the_one_of_its_export(tmp_path: Path) -> None:
    with local_log(tmp_path) as opened:
        for number in range(7):
            for phase in ("INTENT", "DONE"):
                opened.log.append(statement(number, phase=phase))
        reading = AuditReading(opened.log, opened.store, SystemClock())
        auditor = Principal("auditor-1", "northshire", frozenset({"auditor"}), frozenset())
        made, known = reading.transparency(auditor, [], "monthly report")
        export = tmp_path / "export.jsonl"
        export.write_bytes(b"".join(export_lines(opened.store, made.checkpoint)))
        assert made.document() == counted(export, None, list(known)).document()
        assert made.table("searches by month").rows[WHOLE]["searches"] == 7
        assert (made.months, len(known)) == (known, 1)
        assert set(zipfile.ZipFile(io.BytesIO(render_archive(made))).namelist()) == {AGGREGATES, PAGE, PAPER}
        opened.log.append(statement(8, phase="DONE"))
        assert reading.transparency(auditor, known, "")[0].table("searches by month").rows[WHOLE]["searches"] == 8
        with pytest.raises(Forbidden):
            reading.transparency(Principal("p", "northshire", frozenset({"supervisor"}), frozenset()), [], "")


def test_it_has_read_every_entry(export: Path, store: SqlLogStore) -> None:
    figures = UnitStatistics(store).figures([], None)
    assert figures.entries == sum(1 for _ in entries_of(export)) == store.size()
    assert orjson.dumps(figures.known_months) == b'["2026-10","2026-11"]'
