"""`likeness backup` and `likeness restore`. The runbook is docs/operations/backup-and-restore.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.local.cli import DEFAULT_DATA, DataOption
from services.local.deployment import DataFolder


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(backup)
    app.command()(restore)


def backup(
    to: Annotated[Path, typer.Option(help="A new folder for the record: ledger, images, log, searches, casework.")],
    keys_to: Annotated[
        Path, typer.Option(help="The folder for the keys, elsewhere; the copy that is there is replaced.")
    ],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Back up a platform of this machine, while it runs or not."""
    from services.local.backup.taking import take_backup  # noqa: PLC0415 - `likeness --help` stays quick
    from services.shared.clock import SystemClock  # noqa: PLC0415

    console = Console()
    folder = DataFolder(data.resolve())
    backup_id = take_backup(folder, to.resolve(), keys_to.resolve(), SystemClock(), lambda text: _say(console, text))
    console.print(f"Backup {backup_id}: record in {to}, keys in {keys_to}. Keep them apart.", soft_wrap=True)


def restore(
    from_: Annotated[Path, typer.Option("--from", help="The record, as `likeness backup` wrote it.")],
    keys_from: Annotated[Path, typer.Option(help="The newest copy of the keys.")],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Put a backup into an empty data folder, after every file of it was checked."""
    from services.local.backup.restoring import restore_backup  # noqa: PLC0415 - `likeness --help` stays quick

    console = Console()
    folder = DataFolder(data.resolve())
    restore_backup(folder, from_.resolve(), keys_from.resolve(), lambda text: _say(console, text))
    console.print(
        f"Restored into {folder.root}. Next: `likeness up --data {folder.root}`, then `likeness gallery reconcile` and "
        "`likeness audit verify`; docs/operations/backup-and-restore.md says what to look for.",
        soft_wrap=True,
    )


def _say(console: Console, text: str) -> None:
    console.print(f"  {text}", soft_wrap=True, highlight=False)
