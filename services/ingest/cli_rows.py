"""Rows on a terminal: a table where it fits, one row under the other where it does not, so that nothing is cut off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_ANY_WIDTH = 10_000  # what a table would like, whatever the terminal has


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], console: Console | None = None) -> None:
    """Print these columns of each row. What stands in a row is data: no markup in it counts."""
    console = console or Console()
    cells = [[_words(row[column]) for column in columns] for row in rows]
    table = Table(*columns)
    for each in cells:
        table.add_row(*(Text(cell) for cell in each))
    if not cells or Measurement.get(console, console.options.update(width=_ANY_WIDTH), table).maximum <= console.width:
        console.print(table)
        return
    label = max(map(len, columns)) + 2
    for each in cells:
        for column, cell in zip(columns, each, strict=True):
            console.print(Text(f"{column:<{label}}{cell}"), soft_wrap=True)
        console.print()


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_words(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
