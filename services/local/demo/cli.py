"""`likeness demo`"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

DEFAULT_DATA = Path("demo-data")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    data: Annotated[Path, typer.Option("--data", help="Where it keeps everything; a second run goes on there.")] = (
        DEFAULT_DATA
    ),
) -> None:
    """Show the whole platform at the unit's size: enrol, search, print times, write a contact sheet.

    Exit status 0 only if every enrolled person came back at rank 1 in every probe that is not marked as hard.
    """
    from services.local.demo.run import run  # noqa: PLC0415 - `likeness --help` stays quick
    from services.local.demo.sheet_html import write_html  # noqa: PLC0415
    from services.local.demo.sheet_png import write_png  # noqa: PLC0415
    from services.local.demo.table import print_result  # noqa: PLC0415
    from services.local.deployment import DataFolder  # noqa: PLC0415

    console = _console()
    folder = DataFolder(data.resolve())
    pictures = folder.root / "demo-pictures"
    _fetch_models()
    with console.status("Preparing") as status:
        result = run(folder, pictures, _Steps(console, status))
    print_result(result, console)
    sheet, picture = folder.root / "contact-sheet.html", folder.root / "contact-sheet.png"
    write_html(result, pictures, sheet)
    write_png(result, pictures, picture)
    console.print(f"Contact sheet: {sheet}\n               {picture}", soft_wrap=True, highlight=False)
    console.print(
        f"Go on with it: source .venv/bin/activate; likeness up --data {data} --allow-synthetic",
        soft_wrap=True,
        highlight=False,
    )
    raise typer.Exit(0 if result.succeeded else 1)


def _fetch_models() -> None:
    """In a process of its own, since the command is another service's."""
    done = subprocess.run([sys.executable, "-P", "-m", "services.cli", "models", "fetch"], check=False)
    if done.returncode != 0:
        raise typer.Exit(done.returncode)


class _Steps:
    """Shows the step on a terminal, and writes each once elsewhere."""

    def __init__(self, console: Console, status: Status) -> None:
        self._console = console
        self._status = status
        self._last = ""

    def __call__(self, text: str) -> None:
        self._status.update(text)
        if not self._console.is_terminal and text != self._last:
            self._console.print(text, highlight=False)
        self._last = text


def _console() -> Console:
    """The terminal's width; enough for the table where the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
