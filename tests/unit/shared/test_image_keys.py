"""Keys of images: what destroying one means for every copy, and that no crash leaves keys that nothing opens."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.image_keys import ImageKeys, metadata
from services.shared.adapters.master_key import MasterKey, MasterKeyFile
from services.shared.adapters.sealed_image_store import SealedImageStore
from services.shared.database import create_engine
from services.shared.errors import ConfigurationError, LikenessError, NotFound
from services.shared.settings import DatabaseSettings

IMAGE = b"the bytes of a face, unmistakable" * 40


def open_keys(folder: Path) -> ImageKeys:
    folder.mkdir(parents=True, exist_ok=True)
    engine = create_engine(DatabaseSettings(url=f"sqlite:///{folder / 'keys.sqlite'}"))
    return ImageKeys(engine, MasterKeyFile(folder / "master.key"))


def every_byte(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_nothing_of_an_image_is_on_the_disk_in_the_clear(tmp_path: Path) -> None:
    store = SealedImageStore(FolderImageStore(tmp_path / "images"), open_keys(tmp_path / "keys"))
    sha256 = store.put(IMAGE)
    assert store.get(sha256) == IMAGE
    assert b"unmistakable" not in every_byte(tmp_path)


def test_a_backup_of_images_and_keys_opens_nothing_after_an_erasure(tmp_path: Path) -> None:
    keys = open_keys(tmp_path / "keys")
    store = SealedImageStore(FolderImageStore(tmp_path / "images"), keys)
    erased, kept = store.put(IMAGE), store.put(b"somebody else's")
    shutil.copytree(tmp_path / "images", tmp_path / "backup" / "images")
    shutil.copytree(tmp_path / "keys", tmp_path / "backup" / "keys")
    store.remove(erased)
    keys.change_master()
    assert store.get(kept) == b"somebody else's"
    keys.close()

    # The images restored beside the keys as they are now.
    restored = SealedImageStore(FolderImageStore(tmp_path / "backup" / "images"), open_keys(tmp_path / "keys"))
    assert restored.get(kept) == b"somebody else's"
    with pytest.raises(NotFound):
        restored.get(erased)
    # The key table restored too, under the one master key that still exists.
    shutil.copy(tmp_path / "keys" / "master.key", tmp_path / "backup" / "keys" / "master.key")
    with pytest.raises(ConfigurationError):
        open_keys(tmp_path / "backup" / "keys")


def test_a_destroyed_key_is_in_no_page_of_the_table(tmp_path: Path) -> None:
    keys = open_keys(tmp_path)
    name = "a" * 64
    keys.ensure({name: ""})
    wrapped = keys._engine.connect().exec_driver_sql("SELECT wrapped FROM image_keys").scalar_one()
    assert wrapped in every_byte(tmp_path)
    keys.destroy(name)
    keys.forget(name)
    keys.change_master()
    assert wrapped not in every_byte(tmp_path)
    assert not keys.find([name])


@pytest.mark.parametrize("after", ["first write", "commit"])
def test_a_change_of_the_master_key_that_is_broken_off_loses_nothing(
    tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = open_keys(tmp_path)
    names = [os.urandom(32).hex() for _ in range(50)]
    made = keys.ensure(dict.fromkeys(names, ""))
    written = MasterKeyFile.write
    calls: list[int] = []

    def write(file: MasterKeyFile, *held: MasterKey) -> None:
        calls.append(len(held))
        if after == "commit" and len(calls) == 2:
            raise OSError("killed")
        written(file, *held)
        if after == "first write":
            raise OSError("killed")

    monkeypatch.setattr(MasterKeyFile, "write", write)
    with pytest.raises(LikenessError):
        keys.change_master()
    monkeypatch.undo()
    keys.close()
    assert open_keys(tmp_path).find(names) == made
    assert len(MasterKeyFile(tmp_path / "master.key").read()) == 1


def test_another_process_follows_a_change_of_the_master_key(tmp_path: Path) -> None:
    one, other = open_keys(tmp_path), open_keys(tmp_path)
    made = one.ensure({"b" * 64: ""})
    other.change_master()
    assert one.find(["b" * 64]) == made
    late = one.ensure({"c" * 64: ""})
    assert other.find(["c" * 64]) == late


def test_many_threads_agree_on_one_key_an_image(tmp_path: Path) -> None:
    keys = open_keys(tmp_path)
    names = [os.urandom(32).hex() for _ in range(6)] * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: keys.ensure({name: ""})[name], names))
    assert {(each.sha256, each.key) for each in found} == {(n, k.key) for n, k in keys.find(names).items()}
    assert keys.count() == 6


def test_a_master_key_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    open_keys(tmp_path).close()
    (tmp_path / "master.key").chmod(0o644)
    with pytest.raises(ConfigurationError):
        open_keys(tmp_path)


def test_who_reads_the_file_while_another_process_replaces_it_gets_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has opened the file that the writer then overwrites with zeros."""
    file = MasterKeyFile(tmp_path / "master.key")
    first, second = MasterKey.new(), MasterKey.new()
    file.write(first)
    read_text, zeros = Path.read_text, iter(["\0" * 120])

    def read(path: Path, encoding: str | None = None) -> str:
        file.write(second)
        return next(zeros, "") or read_text(path, encoding)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", read)
        held = file.read()
    assert list(held) == [second.key_id]


def test_processes_that_start_together_agree_on_the_first_master_key(tmp_path: Path) -> None:
    metadata.create_all(create_engine(DatabaseSettings(url=f"sqlite:///{tmp_path / 'keys.sqlite'}")))
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _number: open_keys(tmp_path), range(4)))
    name = "0" * 64
    opened[0].ensure({name: ""})
    assert len({keys.find([name])[name].key for keys in opened}) == 1
    assert len(MasterKeyFile(tmp_path / "master.key").read()) == 1


def test_processes_that_change_the_master_key_at_once_take_turns(tmp_path: Path) -> None:
    processes = [open_keys(tmp_path) for _ in range(3)]
    name = "0" * 64
    key = processes[0].ensure({name: ""})[name].key
    with ThreadPoolExecutor(len(processes)) as pool:
        changed = list(pool.map(lambda keys: keys.change_master(), processes))
    assert len(set(changed)) == len(processes)
    assert {keys.find([name])[name].key for keys in (*processes, open_keys(tmp_path))} == {key}
    assert len(MasterKeyFile(tmp_path / "master.key").read()) == 1
