"""`likeness images copy`: a store to a folder, and back. The runbook is docs/operations/backup-and-restore.md."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.shared.errors import ConfigurationError
from services.shared.settings import ImageStoreSettings

images_app = typer.Typer(no_args_is_help=True, help="Copy what an image store holds, and back.")


class Store(StrEnum):
    """Whose images."""

    INGEST = "ingest"
    SEARCH = "search"
    REVIEW = "review"


@images_app.callback()
def _group() -> None:
    """Keeps a lone command a command."""


@images_app.command("copy")
def copy(
    store: Annotated[Store, typer.Option(help="Whose store, by that service's own settings (LIKENESS_<SERVICE>__…).")],
    to: Annotated[Path | None, typer.Option(help="Folder that gets what it lacks.")] = None,
    from_folder: Annotated[Path | None, typer.Option("--from", help="Folder to put back into the store.")] = None,
    prune: Annotated[bool, typer.Option(help="With --to: remove from the folder what the store has no more.")] = False,
) -> None:
    """Copy images as they lie in the store: sealed ones stay sealed. The platform may run; run again, it goes on."""
    from services.local.backup.copying import copy_images  # noqa: PLC0415 - `likeness --help` stays quick
    from services.shared.adapters.folder_image_store import FolderImageStore  # noqa: PLC0415
    from services.shared.adapters.opening import open_bare_image_store  # noqa: PLC0415

    if (to is None) == (from_folder is None) or (prune and to is None):
        raise ConfigurationError("Which way?", advice="Give --to, with or without --prune, or --from.")
    if from_folder is not None and not from_folder.is_dir():
        raise ConfigurationError(f"There is no folder {from_folder}.", advice="Give the folder of an earlier copy.")
    opened = open_bare_image_store(_settings(store))
    if to is not None:
        done = copy_images(opened, FolderImageStore(to), prune=prune)
    else:
        done = copy_images(FolderImageStore(from_folder or Path()), opened, heal=True)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{store}: {done.copied} copied, {done.there} were there, {done.pruned} removed.")
    for name in done.damaged:
        console.print(f"Not copied, its bytes are not what they were: {name}")
    if done.damaged:
        raise typer.Exit(1)


def _settings(store: Store) -> ImageStoreSettings:
    from services.ingest.settings import IngestSettings  # noqa: PLC0415 - only one of them is needed
    from services.review.settings import ReviewSettings  # noqa: PLC0415
    from services.search.settings import SearchSettings  # noqa: PLC0415

    if store is Store.INGEST:
        return IngestSettings().images
    return SearchSettings().probes if store is Store.SEARCH else ReviewSettings().images
