"""What a bulk load shows: bars while it runs, a summary and a report by id at its end."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from services.ingest.bulk.loader import PENDING, Report
from services.ingest.bulk.manifest import BulkRow

_ORDER = ("enrolled", "refused", "quarantined", "withdrawn", PENDING, "not_submitted")
_WORDS = {PENDING: "still pending", "not_submitted": "not submitted"}


class _Rate(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


class Bars:
    """Two bars: submitted and settled."""

    def __init__(self, console: Console, total: int, *, is_waiting: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("time left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._total = total
        self._submitted = self._progress.add_task("submitted", total=total)
        self._settled = self._progress.add_task("settled  ", total=total) if is_waiting else None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def submitted(self, count: int) -> None:
        self._progress.advance(self._submitted, count)

    def not_submitted(self, count: int) -> None:
        """They are none of either bar's any more."""
        self._total -= count
        for task in (self._submitted, self._settled):
            if task is not None and count:
                self._progress.update(task, total=self._total)

    def settled(self, count: int) -> None:
        if self._settled is not None:
            self._progress.advance(self._settled, count)


def summary(rows: Sequence[BulkRow], report: Report) -> Table:
    """Rows by state, with the reasons below each."""
    counts = report.counts(rows)
    table = Table("images", "", "reason", title="Enrolment", title_justify="left")
    for state in _ORDER:
        reasons = {reason: count for (its_state, reason), count in counts.items() if its_state == state}
        if not reasons and state not in _ORDER[:3]:
            continue
        table.add_row(str(sum(reasons.values())), _WORDS.get(state, state), "")
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
            if reason:
                table.add_row("", str(count), reason)
    table.add_section()
    table.add_row(str(len(rows)), "in the manifest", "")
    return table


def write_report(path: Path, rows: Sequence[BulkRow], report: Report) -> None:
    """A CSV file with a line an image."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "subject_id", "watchlist", "owner", "enrolment_id", "state", "reason", "detail"])
        for row in rows:
            submission = report.submissions.get(row.line)
            fields = row.fields
            writer.writerow(
                [
                    *(_inert(text) for text in (row.name, fields["subject_id"], fields["watchlist"], fields["owner"])),
                    submission.enrolment_id if submission else "",
                    *(_inert(text) for text in report.state_of(row)),
                ]
            )


def _inert(text: str) -> str:
    """Spreadsheets take a cell that starts like this for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
