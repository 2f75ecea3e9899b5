"""Images whose store looks after their keys: what is erased opens with nothing, what lay open is sealed."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.opening import open_image_store
from services.shared.adapters.self_sealing_image_store import SelfSealingImageStore
from services.shared.errors import ConfigurationError, LikenessError, NotFound
from services.shared.settings import ImageStoreSettings
from tests.support.waiting import wait_until
from tests.unit.shared.test_image_keys import every_byte, open_keys

PROBE = b"the bytes of a probe, unmistakable" * 40


def opened(root: Path, renew_after_s: float = 3600.0) -> tuple[SelfSealingImageStore, FolderImageStore]:
    folder = FolderImageStore(root / "probes")
    return SelfSealingImageStore(folder, open_keys(root / "keys"), renew_after_s=renew_after_s), folder


def rows(root: Path) -> int:
    with closing(sqlite3.connect(root / "keys" / "keys.sqlite")) as connection:
        count: int = connection.execute("SELECT count(*) FROM image_keys").fetchone()[0]
    return count


def test_after_an_erasure_an_old_key_table_opens_nothing(tmp_path: Path) -> None:
    store, folder = opened(tmp_path)
    erased, kept = store.put(PROBE), store.put(b"another case's")
    shutil.copytree(tmp_path, tmp_path.with_name("before"))
    store.remove(erased)
    assert not store.has(erased)
    with pytest.raises(NotFound):
        store.get(erased)
    assert len(list(folder.names())) == 1
    assert store.renew()
    assert not store.renew(), "once is enough"
    assert (store.get(kept), rows(tmp_path)) == (b"another case's", 1)

    before = tmp_path.with_name("before")
    shutil.copy(tmp_path / "keys" / "master.key", before / "keys" / "master.key")
    with pytest.raises(ConfigurationError):
        opened(before)


def test_a_replica_opens_what_another_sealed_and_nothing_that_another_erased(tmp_path: Path) -> None:
    """Search in a cluster: one table, one master key file, one bucket, and whoever is asked."""
    one, folder = opened(tmp_path)
    other, _ = opened(tmp_path)
    erased, kept = one.put(PROBE), other.put(b"another case's")
    assert (other.get(erased), one.get(kept)) == (PROBE, b"another case's")
    sealed_before = set(folder.names())
    one.remove(erased)
    assert one.renew()
    assert not other.renew(), "there is nothing left to do"
    assert not other.has(erased)
    with pytest.raises(NotFound):
        other.get(erased)
    assert other.get(kept) == b"another case's"
    assert len(sealed_before - set(folder.names())) == 1
    # The same probe of another case, later, through the other one.
    assert other.put(PROBE) == erased
    assert one.get(erased) == PROBE


def test_the_next_process_changes_the_master_key_that_the_last_one_left(tmp_path: Path) -> None:
    store, _ = opened(tmp_path)
    store.remove(store.put(PROBE))
    master = (tmp_path / "keys" / "master.key").read_bytes()
    again, _ = opened(tmp_path)
    again.start()
    wait_until(lambda: rows(tmp_path) == 0, 60, "the destroyed key to be forgotten")
    assert (tmp_path / "keys" / "master.key").read_bytes() != master


def test_the_master_key_changes_by_itself_once_for_many(tmp_path: Path) -> None:
    store, _ = opened(tmp_path, renew_after_s=0.01)
    for name in [store.put(bytes([number]) * 100) for number in range(5)]:
        store.remove(name)
    wait_until(lambda: rows(tmp_path) == 0, 60, "the destroyed keys to be forgotten")


def test_what_lay_open_is_sealed_and_what_is_erased_meanwhile_stays_erased(tmp_path: Path) -> None:
    store, folder = opened(tmp_path)
    open_one, erased = folder.put(PROBE), folder.put(PROBE + b"2")
    sealed = store.put(b"sealed from the start")
    assert store.get(open_one) == PROBE
    store.remove(erased)
    assert store.seal_open(folder) == 1
    assert store.seal_open(folder) == 0
    assert b"unmistakable" not in every_byte(tmp_path)
    assert (store.get(open_one), store.get(sealed)) == (PROBE, b"sealed from the start")
    assert not store.has(erased)


def test_a_sealing_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    """The process ended when the sealed bytes were there and the open ones still, and another before the key was."""
    store, folder = opened(tmp_path)
    name = folder.put(PROBE)
    store.put(PROBE)
    orphan = folder.put(b"LKS1 of a writer that is between its two steps")
    assert store.seal_open(folder) == 1
    assert store.get(name) == PROBE
    assert hashlib.sha256(PROBE).hexdigest() not in set(folder.names())
    assert folder.has(orphan)


def test_settings_with_keys_open_it_and_seal_what_is_there(tmp_path: Path) -> None:
    name = FolderImageStore(tmp_path / "probes").put(PROBE)
    settings = ImageStoreSettings(
        path=tmp_path / "probes",
        keys_url=f"sqlite:///{tmp_path / 'keys' / 'keys.sqlite'}",
        master_key_path=tmp_path / "keys" / "master.key",
    )
    store = open_image_store(settings)
    wait_until(lambda: b"unmistakable" not in every_byte(tmp_path / "probes"), 60, "the open image to be sealed")
    assert store.get(name) == PROBE


def test_a_master_key_of_another_day_is_said_at_the_start(tmp_path: Path) -> None:
    opened(tmp_path)[0].put(PROBE)
    (tmp_path / "keys" / "master.key").unlink()
    with pytest.raises(LikenessError):
        opened(tmp_path)
