"""Markdown tables of docs/accuracy.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.accuracy.paired import Difference
from tests.accuracy.steps import StepResult

Figures = Mapping[str, Any]
RANKS = ("1", "5", "20")


def side_by_side(naive: Any, likeness: Any) -> str:
    """Three tables: overall, by source, by condition; the naive pipeline's figure first in each cell pair."""
    ours, theirs = naive[0], likeness[0]
    lines = [
        "| | naive (OpenCV) | Likeness |",
        "|---|---|---|",
        *(f"| rank {rank} | {_rate(ours['ranks'][rank])} | {_rate(theirs['ranks'][rank])} |" for rank in RANKS),
        *(_points(title, ours[key], theirs[key]) for title, key in _BASES),
        f"| not acquired | {sum(ours['failures'].values())} | {sum(theirs['failures'].values())} |",
        "",
        "| source | mated | naive rank 1 | Likeness rank 1 | naive rank 5 | Likeness rank 5 |",
        "|---|---|---|---|---|---|",
        *_sources(ours["slices"]["source"], theirs["slices"]["source"]),
        "",
        "| probes | naive rank 1 | Likeness rank 1 | naive TPIR | Likeness TPIR |",
        "|---|---|---|---|---|",
        *(_condition(left, right) for left, right in zip(naive, likeness, strict=True)),
    ]
    return "\n".join(lines)


_BASES = (
    ("TPIR at FPIR {} of the 100 non-mated probes", "at_fpir"),
    ("TPIR at FPIR {}, each subject left out in turn", "at_fpir_leaving_one_out"),
)


def _points(title: str, ours: Sequence[Figures], theirs: Sequence[Figures]) -> str:
    rows = []
    for left, right in zip(ours, theirs, strict=True):
        if left["tpir"] is not None and right["tpir"] is not None:
            share = f"{100 * left['wished_fpir']:g} %"
            rows.append(f"| {title.format(share)} | {_rate(left['tpir'])} | {_rate(right['tpir'])} |")
    return "\n".join(rows)


def _sources(ours: Sequence[Figures], theirs: Sequence[Figures]) -> list[str]:
    by_name = {part["name"]: part for part in theirs}
    return [
        f"| {part['name']} | {part['mated']} | {_rate(part['rank_1'])} | {_rate(by_name[part['name']]['rank_1'])} "
        f"| {_rate(part['rank_5'])} | {_rate(by_name[part['name']]['rank_5'])} |"
        for part in ours
        if part["mated"]
    ]


def _condition(ours: Figures, theirs: Figures) -> str:
    cells = [_rate(ours["ranks"]["1"]), _rate(theirs["ranks"]["1"]), _one_percent(ours), _one_percent(theirs)]
    return f"| {theirs['condition']} | {' | '.join(cells)} |"


def _one_percent(summary: Figures) -> str:
    return _rate(next(point["tpir"] for point in summary["at_fpir_leaving_one_out"] if point["wished_fpir"] == 0.01))


def _rate(rate: Figures | None) -> str:
    if rate is None or rate["estimate"] is None:
        return "too few"
    return f"{rate['estimate']:.4f} [{rate['low']:.3f}, {rate['high']:.3f}]"


def steps_table(condition: str, results: Sequence[StepResult]) -> str:
    lines = [f"| {condition} | rank 1 | TPIR at FPIR 10 % | TPIR at FPIR 1 % |", "|---|---|---|---|"]
    for result in results:
        figures = (result.rank_1, *result.tpir.values())
        lines.append(f"| {result.step.title} | {' | '.join(f'{figure:.4f}' for figure in figures)} |")
    return "\n".join(lines) + "\n"


def differences_table(condition: str, differences: Sequence[Difference]) -> str:
    cells = (f"{d.title}: {d.estimate:+.4f} [{d.low:+.3f}, {d.high:+.3f}]" for d in differences)
    return f"| {condition} | " + " | ".join(cells) + " |"
