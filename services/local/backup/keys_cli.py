"""`likeness keys`: changes a key that no service changes by itself. The runbook is docs/operations/rotate-keys.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.local.backup.contents import KEY_DATABASES, KEY_FILES
from services.shared.errors import ConfigurationError
from services.shared.settings import ImageStoreSettings

keys_app = typer.Typer(no_args_is_help=True, help="Change keys.")


@keys_app.callback()
def _group() -> None:
    """Keeps a lone command a command."""


@keys_app.command("rotate-images")
def rotate_images(
    data: Annotated[
        Path | None, typer.Option(help="Data folder of a platform, running or stopped; else ingest's own settings.")
    ] = None,
) -> None:
    """Wrap the key of every image under a new master key and destroy the old one. The platform may run."""
    from services.shared.adapters.opening import open_image_keys  # noqa: PLC0415 - `likeness --help` stays quick

    keys = open_image_keys(_settings(data))
    if keys is None:
        raise ConfigurationError("Images are not sealed here.", advice="Set LIKENESS_INGEST__IMAGES__KEYS_URL.")
    try:
        count, new = keys.count(), keys.change_master()
    finally:
        keys.close()
    Console(highlight=False, soft_wrap=True).print(
        f"{count} keys are wrapped under the new master key {new}; the old one is destroyed.\n"
        "Back up the keys now: copies from before open nothing any more."
    )


def _settings(data: Path | None) -> ImageStoreSettings:
    from services.ingest.settings import IngestSettings  # noqa: PLC0415 - `likeness --help` stays quick

    if data is None:
        return IngestSettings().images
    table = data / KEY_DATABASES[0]
    if not table.exists():
        raise ConfigurationError(f"{data} holds no image keys.", advice="Give the folder of `likeness up`.")
    return ImageStoreSettings(keys_url=f"sqlite:///{table}", master_key_path=data / KEY_FILES[0])
