"""`likeness keys`: changes a key that no service changes by itself. The runbook is docs/operations/rotate-keys.md."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from services.local.backup.contents import KEY_DATABASES, MASTER_KEYS
from services.local.deployment import SERVICES, CertificateFolder, DataFolder
from services.shared.clock import SystemClock
from services.shared.errors import ConfigurationError
from services.shared.settings import ImageStoreSettings

if TYPE_CHECKING:
    from services.local.certificates import LocalAuthority

keys_app = typer.Typer(no_args_is_help=True, help="Change keys.")


@keys_app.callback()
def _group() -> None:
    """Keeps a lone command a command."""


@keys_app.command("rotate-images")
def rotate_images(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data folder of a platform, running or stopped; else the settings of the service whose pod this is."
        ),
    ] = None,
) -> None:
    """Wrap the key of every image, probe and request under a new master key and destroy the old one. The platform may
    run."""
    from services.shared.adapters.opening import open_image_keys  # noqa: PLC0415 - `likeness --help` stays quick

    console = Console(highlight=False, soft_wrap=True)
    for settings in _settings(data):
        keys = open_image_keys(settings)
        if keys is None:
            raise ConfigurationError("Images are not sealed here.", advice="Set LIKENESS_INGEST__IMAGES__KEYS_URL.")
        try:
            count, new = keys.count(), keys.change_master()
        finally:
            keys.close()
        console.print(f"{count} keys are wrapped under the new master key {new}; the old one is destroyed.")
    console.print("Back up the keys now: copies from before open nothing any more.")


@keys_app.command("follow-authority")
def follow_authority(
    data: Annotated[Path, typer.Option(help="Data folder of a platform, running or stopped.")],
) -> None:
    """Put another authority of mutual TLS in the place of the one in use, which is believed until it is dropped."""
    from services.local.issuing import LOOKED_AT_S  # noqa: PLC0415 - `likeness --help` stays quick
    from services.rpc.access import TOOLS  # noqa: PLC0415

    folder = _authority_folder(data)
    _open_authority(folder).follow(lambda: time.sleep(LOOKED_AT_S)).renew(SERVICES, clients=(TOOLS,))
    Console(highlight=False, soft_wrap=True).print(
        "Another authority signs now, and every service has a certificate of it. The former is still believed: drop it "
        "with `likeness keys drop-authority` once certificates that you took elsewhere have been replaced."
    )


@keys_app.command("drop-authority")
def drop_authority(
    data: Annotated[Path, typer.Option(help="Data folder of a platform, running or stopped.")],
) -> None:
    """Believe only the authority of mutual TLS that signs now."""
    others = _open_authority(_authority_folder(data)).drop_others()
    Console(highlight=False, soft_wrap=True).print(f"{others} former authorities are no longer believed.")


def _authority_folder(data: Path) -> CertificateFolder:
    folder = DataFolder(data).certificates
    if not folder.authority_key.exists():
        raise ConfigurationError(f"{data} has no authority.", advice="Give the folder of `likeness up`.")
    return folder


def _open_authority(folder: CertificateFolder) -> LocalAuthority:
    from services.local.certificates import LocalAuthority  # noqa: PLC0415 - loads cryptography

    return LocalAuthority.open(folder, SystemClock())


def _settings(data: Path | None) -> list[ImageStoreSettings]:
    """Of every key table that is there: of a data folder all, else of those that the environment has settings of."""
    if data is None:
        return _of_this_environment()
    pairs = zip(KEY_DATABASES, MASTER_KEYS, strict=True)
    found = [
        ImageStoreSettings(keys_url=f"sqlite:///{data / table}", master_key_path=data / master)
        for table, master in pairs
        if (data / table).exists()
    ]
    if not found:
        raise ConfigurationError(f"{data} holds no image keys.", advice="Give the folder of `likeness up`.")
    return found


def _of_this_environment() -> list[ImageStoreSettings]:
    """In a pod those of its own service."""
    from services.ingest.settings import IngestSettings  # noqa: PLC0415 - `likeness --help` stays quick
    from services.review.settings import ReviewSettings  # noqa: PLC0415
    from services.search.settings import SearchSettings  # noqa: PLC0415

    stores = (IngestSettings().images, SearchSettings().probes, ReviewSettings().images)
    found = [store for store in stores if store.keys_url]
    if not found:
        raise ConfigurationError(
            "No key table is named here.", advice="Give --data, or set LIKENESS_INGEST__IMAGES__KEYS_URL."
        )
    return found
