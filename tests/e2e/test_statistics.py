"""Statistics from a log that the services wrote: requests worked over REST, counted by hand beside it, published."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from services.audit.statistics.aggregates import parse_aggregates
from services.audit.statistics.cli import write_report
from services.audit.statistics.intervals import wilson
from services.audit.statistics.report import render_html
from services.audit.statistics.suppression import SMALLEST
from tests.support.platform import Platform
from tests.support.real_month import SETTINGS, Told, Unit, export, open_unit

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

REQUESTS, REFUSED = 9, 6


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unit]:
    with Platform(tmp_path_factory.mktemp("month"), settings=SETTINGS) as platform, ExitStack() as stack:
        working = open_unit(platform, stack, people=3)
        working.work(REQUESTS)
        working.refuse(REFUSED)
        yield working


def _figures(unit: Unit, role: str, force: str = "northshire") -> Any:
    with unit.platform.client("audit", role, force=force) as client:
        answer = client.get("/v1/audit/statistics", params={"reason": "test"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _counts(told: list[Told]) -> dict[str, int]:
    return {
        "received": len(told),
        "decided": sum(one.ended in {"released", "unsuitable"} for one in told),
        "released": sum(one.ended == "released" for one in told),
    }


def test_the_figures_are_those_of_the_clients_ledger(unit: Unit) -> None:
    seen = _figures(unit, "auditor")
    rate = seen["requests"]["potential_name"]
    names = sum(one.has_name for one in unit.told)
    released = _counts(unit.told)["released"]
    assert {name: seen["requests"][name] for name in _counts(unit.told)} == _counts(unit.told)
    assert (rate["count"], rate["total"]) == (names, released)
    expected = wilson(names, released)
    assert expected is not None
    assert (rate["low"], rate["high"]) == (expected.low, expected.high)
    for by, key in (("offence", "offence"), ("force", "force")):
        rows = {row["category"]: row["received"] for row in seen["requests_by"][by]}
        assert rows == Counter(getattr(one, key) for one in unit.told)
    assert seen["searches"] == sum(one.searches for one in unit.told)
    assert {one["category"]: one["count"] for one in seen["refusals"]} == {"forbidden": REFUSED}
    outcomes = Counter(one.outcome or "not known yet" for one in unit.told if one.has_name)
    assert {one["category"]: one["count"] for one in seen["outcomes"]} == outcomes


def test_a_supervisor_sees_the_requests_of_the_own_force(unit: Unit) -> None:
    for force in ("northshire", "eastmoor"):
        own = [one for one in unit.told if one.force == force]
        seen = _figures(unit, "supervisor", force)
        assert seen["force"] == force
        assert {name: seen["requests"][name] for name in _counts(own)} == _counts(own)
        assert {row["category"] for row in seen["requests_by"]["force"]} <= {force}


def test_what_is_published_can_be_worked_out_from_the_aggregates_alone(unit: Unit, tmp_path: Path) -> None:
    source = export(unit.platform, tmp_path / "audit-export.jsonl")
    list(write_report(source, tmp_path, witness=unit.platform.data.root / "audit-witness"))
    aggregates = parse_aggregates((tmp_path / "aggregates.json").read_bytes())
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page == render_html(aggregates)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    counts = [counted for table in aggregates.tables for row in table.rows.values() for counted in row.values()]
    assert all(counted is None or counted == 0 or counted >= SMALLEST for counted in counts)
    assert aggregates.table("refused searches by reason").rows["all"]["refused searches"] == REFUSED
    for one in unit.told:
        assert one.force[:2].upper() + "/2026/" not in page, "no case reference leaves with a report"
    assert not re.search(r"officer-|anna-|bert-", page)
