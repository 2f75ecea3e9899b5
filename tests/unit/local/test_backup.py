"""Backups on small folders: what is refused, and that nothing is half done."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from services.local.backup.contents import DATABASES, EVENTS
from services.local.backup.restoring import restore_backup
from services.local.backup.taking import take_backup
from services.local.deployment import DataFolder
from services.shared.adapters.image_keys import ImageKeys
from services.shared.adapters.master_key import MasterKeyFile
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.clock import SystemClock
from services.shared.database import create_engine
from services.shared.errors import ConfigurationError, IntegrityError
from services.shared.ports.event_log import Event
from services.shared.settings import DatabaseSettings

SEALED = b"a sealed image"


def _quiet(_text: str) -> None:
    """Nobody watches."""


def _keys(root: Path) -> ImageKeys:
    engine = create_engine(DatabaseSettings(url=f"sqlite:///{root / 'image-keys' / 'keys.sqlite'}"))
    return ImageKeys(engine, MasterKeyFile(root / "image-keys" / "master.key"))


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    """A platform's folder: one row a database, one image with its key."""
    folder = DataFolder(tmp_path / "data")
    for name in DATABASES:
        path = folder.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE facts (fact TEXT)")
            connection.execute("INSERT INTO facts VALUES (?)", (name,))
            connection.commit()
    (folder.root / "images" / "ab").mkdir(parents=True)
    (folder.root / "images" / "ab" / "abc").write_bytes(SEALED)
    (folder.root / "images" / "incoming").mkdir()
    (folder.root / "images" / "incoming" / "half").write_bytes(b"half of")
    keys = _keys(folder.root)
    keys.ensure({"0" * 64: "abc"})
    keys.close()
    return folder


@pytest.fixture
def taken(data: DataFolder, tmp_path: Path) -> tuple[Path, Path]:
    record, keys = tmp_path / "record", tmp_path / "keys"
    take_backup(data, record, keys, SystemClock(), _quiet)
    return record, keys


def test_everything_comes_back_while_the_platform_writes(data: DataFolder, tmp_path: Path) -> None:
    record, keys, restored = tmp_path / "record", tmp_path / "keys", DataFolder(tmp_path / "restored")
    with closing(sqlite3.connect(data.root / DATABASES[0])) as writing:
        writing.execute("INSERT INTO facts VALUES ('not committed')")
        take_backup(data, record, keys, SystemClock(), _quiet)
    restore_backup(restored, record, keys, _quiet)
    for name in DATABASES:
        with closing(sqlite3.connect(restored.root / name)) as connection:
            assert connection.execute("SELECT fact FROM facts").fetchall() == [(name,)]
    assert (restored.root / "images" / "ab" / "abc").read_bytes() == SEALED
    assert not (restored.root / "images" / "incoming").exists()
    opened = _keys(restored.root)
    assert opened.count() == 1
    opened.close()


def test_a_file_that_was_changed_lost_or_added_stops_the_restore_before_it_begins(
    taken: tuple[Path, Path], tmp_path: Path
) -> None:
    record, keys = taken
    image = record / "images" / "ab" / "abc"
    for spoil, mend in (
        (lambda: image.write_bytes(b"another image"), lambda: image.write_bytes(SEALED)),
        (image.unlink, lambda: image.write_bytes(SEALED)),
        (lambda: (record / "foreign").write_text("x"), (record / "foreign").unlink),
    ):
        spoil()
        folder = DataFolder(tmp_path / "restored")
        with pytest.raises(IntegrityError):
            restore_backup(folder, record, keys, _quiet)
        assert not (folder.root / "images").exists()
        mend()
    restore_backup(DataFolder(tmp_path / "restored"), record, keys, _quiet)


def test_nothing_is_written_over(data: DataFolder, taken: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigurationError, match="nothing is written over"):
        restore_backup(data, *taken, _quiet)


def test_record_and_keys_may_not_lie_together(data: DataFolder, tmp_path: Path) -> None:
    for record, keys in (
        (tmp_path / "all", tmp_path / "all" / "keys"),
        (tmp_path / "all", tmp_path / "all"),
        (data.root / "backup", tmp_path / "keys"),
    ):
        with pytest.raises(ConfigurationError, match="within one another"):
            take_backup(data, record, keys, SystemClock(), _quiet)
        assert not record.exists()


def test_parts_cannot_be_mistaken_for_each_other(taken: tuple[Path, Path], tmp_path: Path) -> None:
    record, keys = taken
    with pytest.raises(ConfigurationError, match="another part"):
        restore_backup(DataFolder(tmp_path / "restored"), keys, record, _quiet)


def test_of_the_keys_one_copy_is_kept_and_it_opens_after_a_change(
    data: DataFolder, taken: tuple[Path, Path], tmp_path: Path
) -> None:
    _, keys = taken
    before = (keys / "image-keys" / "master.key").read_bytes()
    changing = _keys(data.root)
    changing.change_master()
    changing.close()
    take_backup(data, tmp_path / "record-2", keys, SystemClock(), _quiet)
    assert (keys / "image-keys" / "master.key").read_bytes() != before
    assert [path.name for path in keys.parent.iterdir() if path.name.startswith(".keys")] == []
    # The older record with the newer keys: as it should be.
    restore_backup(DataFolder(tmp_path / "restored"), tmp_path / "record", keys, _quiet)


def test_no_image_of_the_feed_is_in_a_record(tmp_path: Path) -> None:
    """They stand in the log in the clear, and an erasure reaches no backup."""
    data = DataFolder(tmp_path / "data")
    (data.root / "ingest").mkdir(parents=True)
    with closing(sqlite3.connect(data.root / DATABASES[0])):
        pass
    _keys(data.root).close()
    topic, image = "likeness.custody-image-received.v1", b"the bytes of a face, unmistakable" * 400
    log = SqliteEventLog(data.root / EVENTS)
    log.publish([Event(name, "k", image) for name in (topic, f"{topic}.dead-letter", "an-owners-own-name")])
    log.publish([Event("likeness.reference-enrolled.v1", "k", b"no image")])
    log.close()
    take_backup(data, tmp_path / "record", tmp_path / "keys", SystemClock(), _quiet)
    held = b"".join(path.read_bytes() for path in (tmp_path / "record").rglob("*") if path.is_file())
    assert b"unmistakable" not in held
    restored = SqliteEventLog(tmp_path / "record" / EVENTS)
    restored.publish([Event(topic, "k", b"sent again")])
    events = restored.subscribe([topic, "likeness.reference-enrolled.v1"], "group").poll(10, 0.1)
    assert [(event.offset, event.value) for event in events] == [(4, b"no image"), (5, b"sent again")]
    restored.close()


def test_a_witness_that_is_there_stays(data: DataFolder, tmp_path: Path) -> None:
    (data.root / "audit-witness").mkdir()
    (data.root / "audit-witness" / "1").write_text("of the backup")
    record, keys = tmp_path / "record", tmp_path / "keys"
    take_backup(data, record, keys, SystemClock(), _quiet)
    folder = DataFolder(tmp_path / "restored")
    (folder.root / "audit-witness").mkdir(parents=True)
    (folder.root / "audit-witness" / "2").write_text("of later")
    restore_backup(folder, record, keys, _quiet)
    assert [path.name for path in (folder.root / "audit-witness").iterdir()] == ["2"]
