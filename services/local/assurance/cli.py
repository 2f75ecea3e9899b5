"""`likeness assurance write · check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.local.assurance.documents import DOCUMENTS, Drift, Kind, drift, render, updated
from services.local.assurance.facts import gather
from services.local.deployment import DataFolder

assurance_app = typer.Typer(no_args_is_help=True, help="Model card, DPIA and equality assessment, bound to what runs.")

DataOption = Annotated[Path, typer.Option("--data", help="The platform's data folder.")]
FolderArgument = Annotated[Path, typer.Argument(help="The folder of the documents.")]


@assurance_app.command("write")
def write_command(
    folder: FolderArgument,
    data: DataOption = Path("data"),
    update: Annotated[bool, typer.Option("--update", help="Bring the facts of documents up to date.")] = False,
) -> None:
    """Write the documents from their templates; with --update renew the facts in them and keep what people wrote.

    A document that is there is never overwritten.
    """
    console = Console(highlight=False, soft_wrap=True)
    facts = gather(DataFolder(data.resolve()), os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    for name in DOCUMENTS:
        path = folder / name
        if not path.exists():
            path.write_text(render(name, facts), "utf-8")
            console.print(f"{path}: written", markup=False)
        elif update:
            path.write_text(updated(path.read_text("utf-8"), facts), "utf-8")
            console.print(f"{path}: facts brought up to date", markup=False)
        else:
            console.print(f"{path}: there already, left as it is", markup=False)


@assurance_app.command("check")
def check_command(folder: FolderArgument, data: DataOption = Path("data")) -> None:
    """Report where the documents and the configuration differ. Exit code 0 when they do not, 1 when they do."""
    console = Console(highlight=False, soft_wrap=True)
    facts = gather(DataFolder(data.resolve()), os.environ)
    found = list(drift(folder, facts))
    for one in found:
        console.print(f"  {describe(one)}", markup=False)
    running = facts["running.model_id"]
    mismatch = running not in {"not running", facts["model.id"]}
    if mismatch:
        console.print(f"  embed runs {running}, the configuration says {facts['model.id']}: restart it", markup=False)
    if found or mismatch:
        console.print(f"{len(found) + mismatch} differences", style="bold red")
        if found:
            console.print(f"Renew what the documents say: likeness assurance write {folder} --update", markup=False)
        raise typer.Exit(1)
    console.print("The documents say what is configured.", style="green")


def describe(one: Drift) -> str:
    """In words."""
    said = {
        Kind.MISSING: f"{one.document}: there is no such document",
        Kind.CHANGED: f"{one.document}: {one.fact} is {one.now!r}, the document says {one.said!r}",
        Kind.UNKNOWN: f"{one.document}: {one.fact} ({one.said!r}) is not configured any more",
        Kind.LACKING: f"{one.document}: {one.fact} ({one.now!r}) was left out",
    }
    return said[one.kind]
