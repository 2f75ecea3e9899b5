"""Images copied from one store to another: whole, again and again, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.local.backup.copying import copy_images
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.errors import ConfigurationError


@pytest.fixture
def source(tmp_path: Path) -> FolderImageStore:
    return FolderImageStore(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> FolderImageStore:
    return FolderImageStore(tmp_path / "target")


def damage(root: Path, sha256: str) -> None:
    [path] = root.rglob(sha256)
    path.chmod(0o640)
    path.write_bytes(b"other bytes")


def test_a_second_run_copies_only_what_is_new(source: FolderImageStore, target: FolderImageStore) -> None:
    names = {source.put(content) for content in (b"one", b"two")}
    assert copy_images(source, target).copied == 2
    names.add(source.put(b"three"))
    done = copy_images(source, target)
    assert (done.copied, done.there, done.damaged) == (1, 2, [])
    assert set(target.names()) == names
    assert list(target.names()) == sorted(names)


def test_what_is_damaged_is_named_and_the_others_go_on(
    source: FolderImageStore, target: FolderImageStore, tmp_path: Path
) -> None:
    names = sorted(source.put(content) for content in (b"one", b"two", b"three"))
    damage(tmp_path / "source", names[0])
    done = copy_images(source, target)
    assert (done.copied, done.damaged) == (2, [names[0]])
    assert list(target.names()) == names[1:]


def test_what_was_erased_leaves_the_copy_only_when_asked(source: FolderImageStore, target: FolderImageStore) -> None:
    gone, stays = source.put(b"gone"), source.put(b"stays")
    copy_images(source, target)
    source.remove(gone)
    assert copy_images(source, target).pruned == 0
    assert target.has(gone)
    assert copy_images(source, target, prune=True).pruned == 1
    assert list(target.names()) == [stays]


def test_a_lost_store_does_not_empty_its_copy(source: FolderImageStore, target: FolderImageStore) -> None:
    name = target.put(b"one")
    with pytest.raises(ConfigurationError, match="empty"):
        copy_images(source, target, prune=True)
    assert list(target.names()) == [name]


def test_putting_back_mends_what_is_damaged(source: FolderImageStore, target: FolderImageStore, tmp_path: Path) -> None:
    name = source.put(b"one")
    copy_images(source, target)
    damage(tmp_path / "source", name)
    assert copy_images(target, source, heal=True).copied == 1
    assert source.get(name) == b"one"
