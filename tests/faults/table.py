"""The table of faults: runs the tests of every row and writes docs/operations/faults.md.

    python -m tests.faults.table [--rows F6 F10] [--keep] [--from LINES]

What was measured is kept in docs/operations/faults.json. `--rows` runs only those and keeps the figures of the others;
`--keep` runs nothing and writes the page from what is kept; `--from` takes the lines that a run under
LIKENESS_FAULTS_REPORT=LINES has written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fault_report import VARIABLE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "operations" / "faults.md"
FIGURES = ROOT / "docs" / "operations" / "faults.json"
INTRODUCTION = """# Faults

What has been done to running services and servers, and what came of it. Clients keep a ledger of their own of what they
were told. When a fault is over, the platform is held to it (`tests/support/fault_ledger.py`):

- every enrolment that was acknowledged has one id and one outcome: enrolled, refused or quarantined;
- the platform counts the same, and the gallery holds exactly the references of the record;
- every intent in the audit log has its one end, and the log verifies.

`make test` and `make test-stack` run these tests. This page is written by `python -m tests.faults.table` from
`tests/faults/rows.toml` and from what the tests measured; it runs all of them and takes about half an hour.
"""

COUNTED = """Enrolments are counted from the start of the platform that the fault was done to; faults follow one another
on it, so that every judgement covers the ones before."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault: its number, what has to hold, and its tests on embedded adapters and on real servers."""

    id: str
    fault: str
    holds: str
    embedded: tuple[str, ...]
    real: tuple[str, ...]

    @property
    def tests(self) -> tuple[str, ...]:
        return self.embedded + self.real


def rows() -> tuple[Row, ...]:
    with (HERE / "rows.toml").open("rb") as stream:
        found = tomllib.load(stream)["row"]
    return tuple(
        Row(each["id"], each["fault"], each["holds"], tuple(each["embedded"]), tuple(each["real"])) for each in found
    )


def tables(measured: Sequence[Mapping[str, Any]], note: Mapping[str, str]) -> tuple[str, str]:
    """Which test stands for which row; and what was measured."""
    where = ["| row | fault | what must hold | tests, embedded | tests, real servers |", "|---|---|---|---|---|"]
    where += [
        f"| {row.id} | {row.fault} | {row.holds} | {_listed(row.embedded)} | {_listed(row.real)} |" for row in rows()
    ]
    head = ["row", "injected", "on", "times", "accepted", "enrolled", "refused", "quarantined", "withdrawn since"]
    figures = [f"| {' | '.join([*head, 'served again after'])} |", "|---" * (len(head) + 1) + "|"]
    figures += [_figures_of(line) for line in sorted(measured, key=_place)]
    said = f"{note['about']} {COUNTED}\n\n" if note else ""
    return "\n".join(where), said + "\n".join(figures)


def _listed(tests: Iterable[str]) -> str:
    """Names without what they share; the folder says the rest."""
    return "<br>".join(f"`{test.removeprefix('tests/').replace('.py', '')}`" for test in tests) or "none"


def _figures_of(line: Mapping[str, Any]) -> str:
    tally = line["tally"]
    kinds = ("accepted", "enrolled", "refused", "quarantined", "withdrawn")
    counts = [str(tally[kind]) if tally else "" for kind in kinds]
    again = "" if line["recovery_s"] is None else f"{line['recovery_s']:g} s"
    cells = [line["row"], line["fault"], line["engines"], str(line["times"]), *counts, again]
    return f"| {' | '.join(cells)} |"


def _place(line: Mapping[str, Any]) -> tuple[int, str, str]:
    first = line["row"].split(",")[0]
    return int(first[1:]), line["engines"], line["fault"]


def run(chosen: Sequence[Row]) -> list[dict[str, Any]]:
    """Run the tests of these rows; what they measured. Raises CalledProcessError where one fails."""
    by_file: dict[str, set[str]] = defaultdict(set)
    for test in dict.fromkeys(test for row in chosen for test in row.tests):
        by_file[test.partition("::")[0]].add(test)
    tests = [test for path, wanted in by_file.items() for test in ([path] if path in wanted else sorted(wanted))]
    with tempfile.TemporaryDirectory(prefix="likeness-faults-") as folder:
        report = Path(folder) / "lines"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        subprocess.run(command, cwd=ROOT, env={**os.environ, VARIABLE: str(report)}, check=True)
        return read(report)


def read(report: Path) -> list[dict[str, Any]]:
    """The lines of a report; of two about the same the later."""
    lines = [json.loads(line) for line in report.read_text("utf-8").splitlines()]
    return list({(line["row"], line["fault"], line["engines"]): line for line in lines}.values())


def merged(
    old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], again: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Of two about the same the newer. Of the rows that were run `again` nothing old stays: what their tests measured
    once, and do not any more, has another name now or was not done."""
    kept = [line for line in old if not set(line["row"].split(", ")) <= set(again)]
    found = {(line["row"], line["fault"], line["engines"]): line for line in [*kept, *new]}
    return sorted(found.values(), key=_place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=[], help="run these only")
    parser.add_argument("--keep", action="store_true", help="run nothing")
    parser.add_argument("--from", dest="source", type=Path, help="take a report's lines and run nothing")
    parser.add_argument("--about", default="", help="a sentence on the machine and its load")
    options = parser.parse_args()
    kept: dict[str, Any] = {"about": "", "measured": []}
    if FIGURES.is_file():
        kept = json.loads(FIGURES.read_text("utf-8"))
    again: list[str] = []
    if options.source:
        new = read(options.source)
    elif options.keep:
        new = []
    else:
        chosen = [row for row in rows() if not options.rows or row.id in options.rows]
        new, again = run(chosen), [row.id for row in chosen]
    whole: dict[str, Any] = {"about": options.about or kept["about"], "measured": merged(kept["measured"], new, again)}
    FIGURES.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
    where, figures = tables(whole["measured"], {"about": whole["about"]} if whole["about"] else {})
    body = f"\n## Which test stands for which fault\n\n{where}\n\n## What was measured\n\n{figures}\n"
    PAGE.write_text(INTRODUCTION + body, "utf-8")


if __name__ == "__main__":
    main()
