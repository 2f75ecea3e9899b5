"""Putting a backup back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from services.local.backup.contents import DATABASES, KEY_DATABASES, KEY_FILES, MASTER_KEYS, WITNESS, Manifest
from services.local.deployment import DataFolder
from services.local.state import PlatformLock
from services.shared.adapters.opening import open_image_keys
from services.shared.errors import ConfigurationError
from services.shared.settings import ImageStoreSettings


def restore_backup(data: DataFolder, record: Path, keys: Path, note: Callable[[str], None]) -> None:
    """Put both parts into an empty data folder, after these checks, so that nothing is half restored:

    1. no platform runs there and none has a record there; a witness that is there stays as it is;
    2. every file of both parts is what was taken;
    3. once they are in place, each key table opens with its master key.

    Raises ConfigurationError, IntegrityError. The keys may be of a later backup than the record: what was erased in
    between stays erased.
    """
    lock = PlatformLock(data)
    lock.acquire(note)
    try:
        _check_empty(data)
        parts = [(Manifest.read(record, "record"), record), (Manifest.read(keys, "keys"), keys)]
        for manifest, folder in parts:
            manifest.verify(folder)
            note(f"{manifest.part} of {manifest.taken_at}: {len(manifest.files)} files are what was taken")
        has_witness = (data.root / WITNESS).exists()
        for manifest, folder in parts:
            for name in manifest.files:
                if not (has_witness and name.startswith(f"{WITNESS}/")):
                    _put(folder / name, data.root / name)
        if has_witness:
            note("the witness that is here stays as it is")
        _check_keys(data)
    finally:
        lock.release()


def _check_empty(data: DataFolder) -> None:
    standing = [name for name in (*DATABASES, *KEY_DATABASES, *KEY_FILES, "images") if (data.root / name).exists()]
    if standing:
        raise ConfigurationError(
            f"{data.root} holds {standing[0]} already; nothing is written over.",
            advice="Move what is left of the old platform aside and keep it for whoever investigates.",
        )


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(source, target)
    target.chmod(0o600)


def _check_keys(data: DataFolder) -> None:
    for table, master in zip(KEY_DATABASES, MASTER_KEYS, strict=True):
        if not (data.root / table).exists():
            continue  # a platform of before that table was
        settings = ImageStoreSettings(keys_url=f"sqlite:///{data.root / table}", master_key_path=data.root / master)
        opened = open_image_keys(settings)
        if opened is not None:
            opened.count()
            opened.close()
