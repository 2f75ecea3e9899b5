"""The demonstration's table for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from services.local.demo.plan import Expectation
from services.local.demo.results import (
    INTELLIGENCE_ONLY,
    NOTICE,
    PROMISE_MS,
    STAGES,
    DemoResult,
    ProbeResult,
    synthetic_statement,
)


def print_result(result: DemoResult, console: Console) -> None:
    """The table, what was slowest, and what was not real."""
    table = Table(
        title=f"{len(result.probes)} searches over {result.enrolled:,} references",
        title_justify="left",
        caption=f"Milliseconds by stage: {', '.join(STAGES[:-1])}. Promised to officers: an answer within "
        f"{PROMISE_MS / 1000:g} s.",
        caption_justify="left",
    )
    table.add_column("probe")
    table.add_column("faces", justify="right")
    table.add_column("right subject")
    table.add_column("score", justify="right")
    table.add_column("ms by stage", justify="right", no_wrap=True)
    table.add_column("waited", justify="right", no_wrap=True)
    table.add_column("promised", justify="right", no_wrap=True)
    for entry in result.probes:
        table.add_row(*_cells(entry))
    console.print(table)
    for text in (synthetic_statement(result), NOTICE, INTELLIGENCE_ONLY):
        console.print(text, highlight=False)
    console.print()


def _cells(entry: ProbeResult) -> list[str]:
    hard = " [dim](hard)[/]" if entry.probe.expectation is Expectation.HARD else ""
    score = f"{entry.right.score:.3f}" if entry.right is not None else "-"
    stages = " ".join(f"{entry.timings_ms[stage]:3.0f}" for stage in STAGES[:-1])
    waited, promised = f"{entry.waited_ms:.0f} ms", f"{PROMISE_MS:,.0f} ms"
    return [entry.probe.title + hard, str(len(entry.faces)), _outcome(entry), score, stages, waited, promised]


def _outcome(entry: ProbeResult) -> str:
    if entry.probe.expectation is Expectation.NOT_ENROLLED:
        return f"[dim]not enrolled: {entry.verdict}[/]"
    colour = "red" if not entry.is_as_expected else "green" if entry.verdict == "rank 1" else "yellow"
    return f"{entry.probe.subject_id} [{colour}]{entry.verdict}[/]"
