"""Taking a backup of a platform, whether it runs or not."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from services.local.backup.contents import (
    DATABASES,
    EVENTS,
    FILES,
    FOLDERS,
    IMAGE_EVENTS,
    KEY_DATABASES,
    KEY_FILES,
    MASTER_KEYS,
    OUR_EVENTS,
    Manifest,
    digest_of,
    files_of,
)
from services.local.deployment import DataFolder
from services.shared.adapters.master_key import MasterKeyFile
from services.shared.clock import Clock, rfc3339
from services.shared.errors import ConfigurationError
from services.shared.ids import new_id

_TRIES = 5
_SQLITE_WAIT_S = 60.0


def take_backup(data: DataFolder, record: Path, keys: Path, clock: Clock, note: Callable[[str], None]) -> str:
    """Write both parts; the backup's id. `record` is a new folder, `keys` replaces the copy that is there.

    Raises ConfigurationError.
    """
    _check_folders(data, record, keys)
    backup_id, taken_at = new_id(), rfc3339(clock.now())
    record.mkdir(parents=True, mode=0o700)
    for name in DATABASES:
        _copy_database(data.root / name, record / name)
        note(name)
    _drop_images_of_the_feed(record / EVENTS)
    for name in FOLDERS:
        note(f"{name}: {_copy_folder(data.root / name, record / name)} files")
    for name in FILES:
        _copy_file(data.root / name, record / name)
    files = {path.relative_to(record).as_posix(): digest_of(path) for path in files_of(record)}
    # The keys last: whatever the record has is sealed with a key that is here, and what was erased meanwhile is not.
    _take_keys(data, keys, backup_id, taken_at)
    note("keys")
    Manifest("record", backup_id, taken_at, files).write(record)
    return backup_id


def _check_folders(data: DataFolder, record: Path, keys: Path) -> None:
    if not (data.root / DATABASES[0]).exists():
        raise ConfigurationError(f"{data.root} holds no platform.", advice="Give the folder of `likeness up`.")
    if record.exists():
        raise ConfigurationError(f"{record} is there already.", advice="Give a new folder for each backup.")
    places = [path.resolve() for path in (data.root, record, keys)]
    if any(one != two and one.is_relative_to(two) for one in places for two in places) or len(set(places)) < len(
        places
    ):
        raise ConfigurationError(
            "The record, its keys and the platform lie within one another.",
            advice="Give the keys a folder on another disk or host: whoever has both can read every image.",
        )


def _take_keys(data: DataFolder, keys: Path, backup_id: str, taken_at: str) -> None:
    """A whole new copy, then the old one goes: an older one would bring erased people back."""
    draft = keys.with_name(f".{keys.name}.new")
    for _ in range(_TRIES):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        for name in KEY_DATABASES:
            _copy_database(data.root / name, draft / name)
        for name in KEY_FILES:
            _copy_file(data.root / name, draft / name)
        if all(
            _is_pair(draft / table, draft / master) for table, master in zip(KEY_DATABASES, MASTER_KEYS, strict=True)
        ):
            break
    else:
        raise ConfigurationError(
            "The master key does not fit the key table.", advice="Take the backup again when no erasure is under way."
        )
    files = {path.relative_to(draft).as_posix(): digest_of(path) for path in files_of(draft)}
    Manifest("keys", backup_id, taken_at, files).write(draft)
    old = keys.with_name(f".{keys.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if keys.exists():
        keys.rename(old)
    draft.rename(keys)
    _overwrite(old)


def _is_pair(table: Path, master: Path) -> bool:
    """Whether they are of one moment: an erasure that ends in between changes both. Neither there is one, too."""
    if not table.exists():
        return not master.exists()
    with closing(sqlite3.connect(table)) as connection:
        [(in_use,)] = connection.execute("SELECT master_id FROM image_key_master").fetchall()
        wrapping = {
            name for (name,) in connection.execute("SELECT DISTINCT master_id FROM image_keys WHERE wrapped != x''")
        }
    held = set(MasterKeyFile(master).read())
    return {in_use, *wrapping} <= held


def _overwrite(folder: Path) -> None:
    """What can be overwritten is, before it is removed. Copy-on-write and flash keep more; see the runbook."""
    if not folder.exists():
        return
    for path in files_of(folder):
        with path.open("r+b") as stream:
            stream.write(b"\0" * path.stat().st_size)
            stream.flush()
            os.fsync(stream.fileno())
    shutil.rmtree(folder)


def _copy_database(source: Path, target: Path) -> None:
    """As it stands at one moment, while others write."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=_SQLITE_WAIT_S)) as from_,
        closing(sqlite3.connect(target)) as to,
    ):
        from_.backup(to)
        # One file, complete by itself.
        to.execute("PRAGMA journal_mode=DELETE")
    target.chmod(0o600)
    _sync(target)


def _drop_images_of_the_feed(events: Path) -> None:
    """Images that custody systems sent inline stand in the log in the clear, and an erasure reaches no backup: the copy
    has none of them. What ingest has read is in the ledger; the owner sends the rest again, as after every restore."""
    if not events.exists():
        return
    with closing(sqlite3.connect(events, isolation_level=None)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchall():
            return
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("DELETE FROM events WHERE topic LIKE ? OR topic NOT LIKE ?", (IMAGE_EVENTS, OUR_EVENTS))
        connection.execute("VACUUM")
    _sync(events)


def _copy_folder(source: Path, target: Path) -> int:
    """What is removed while it is copied was erased, or was a draft."""
    count = 0
    for path in files_of(source) if source.exists() else ():
        if path.name.startswith(".") or "incoming" in path.relative_to(source).parts:
            continue  # being written
        try:
            _copy_file(path, target / path.relative_to(source))
        except FileNotFoundError:
            continue
        count += 1
    return count


def _copy_file(source: Path, target: Path) -> None:
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(source, target)
    target.chmod(0o600)
    _sync(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
