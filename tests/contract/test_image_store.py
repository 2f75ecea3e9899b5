"""The contract of the ImageStore port, held by every adapter.

An adapter joins by one more parameter of `image_store`: a function that makes an empty store and a function that
damages stored bytes behind its back.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.image_keys import ImageKeys
from services.shared.adapters.master_key import MasterKeyFile
from services.shared.adapters.sealed_image_store import SealedImageStore
from services.shared.database import create_engine
from services.shared.errors import DependencyUnavailable, IntegrityError, NotFound
from services.shared.ports.image_store import SweepableImageStore
from services.shared.settings import DatabaseSettings

CLOCKS_APART = timedelta(minutes=5)  # the store's and the test's
ABSENT = hashlib.sha256(b"never stored").hexdigest()


@dataclass(frozen=True)
class StoreUnderTest:
    store: SweepableImageStore
    damage: Callable[[str], None]


def _folder(path: Path) -> StoreUnderTest:
    def damage(sha256: str) -> None:
        file = path / sha256[:2] / sha256[2] / sha256
        file.chmod(0o640)
        file.write_bytes(b"other bytes")

    return StoreUnderTest(FolderImageStore(path), damage)


def _sealed(path: Path) -> StoreUnderTest:
    """The folder, which sees sealed bytes only."""
    engine = create_engine(DatabaseSettings(url=f"sqlite:///{path.parent / 'keys.sqlite'}"))
    keys = ImageKeys(engine, MasterKeyFile(path.parent / "master.key"))
    folder = _folder(path)

    def damage(sha256: str) -> None:
        folder.damage(keys.find([sha256])[sha256].sealed_sha256)

    return StoreUnderTest(SealedImageStore(folder.store, keys), damage)


@pytest.fixture(params=[pytest.param(_folder, id="folder"), pytest.param(_sealed, id="sealed")])
def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> StoreUnderTest:
    make: Callable[[Path], StoreUnderTest] = request.param
    return make(tmp_path / "images")


@pytest.fixture
def image_store(under_test: StoreUnderTest) -> SweepableImageStore:
    return under_test.store


class TestImageStore:
    def test_what_was_put_comes_back_under_its_digest(self, image_store: SweepableImageStore) -> None:
        content = os.urandom(300_000)
        sha256 = image_store.put(content)
        assert sha256 == hashlib.sha256(content).hexdigest()
        assert image_store.has(sha256)
        assert image_store.get(sha256) == content

    def test_the_same_bytes_again_change_nothing(self, image_store: SweepableImageStore) -> None:
        assert image_store.put(b"once") == image_store.put(b"once")
        assert image_store.get(image_store.put(b"once")) == b"once"

    def test_an_absent_image_is_not_found(self, image_store: SweepableImageStore) -> None:
        assert not image_store.has(ABSENT)
        with pytest.raises(NotFound):
            image_store.get(ABSENT)

    @pytest.mark.parametrize("name", ["", "../../../../etc/passwd", "ab", ABSENT.upper(), "0" * 63 + "/"])
    def test_a_name_that_is_no_digest_is_not_found(self, image_store: SweepableImageStore, name: str) -> None:
        with pytest.raises(NotFound):
            image_store.get(name)

    def test_damaged_bytes_are_never_given_out(self, under_test: StoreUnderTest) -> None:
        sha256 = under_test.store.put(b"an original")
        under_test.damage(sha256)
        with pytest.raises(IntegrityError):
            under_test.store.get(sha256)

    def test_removed_bytes_are_gone_and_removal_repeats(self, image_store: SweepableImageStore) -> None:
        sha256 = image_store.put(b"to be erased")
        image_store.remove(sha256)
        image_store.remove(sha256)
        assert not image_store.has(sha256)
        with pytest.raises(NotFound):
            image_store.get(sha256)

    def test_everything_that_is_stored_is_listed_with_its_time(self, image_store: SweepableImageStore) -> None:
        before = datetime.now(UTC) - CLOCKS_APART
        names = {image_store.put(b"image %d" % number) for number in range(3)}
        listed = list(image_store.stored())
        assert {each.sha256 for each in listed} == names
        assert [each.name for each in listed] == sorted(each.name for each in listed)
        assert all(before < each.stored_at < datetime.now(UTC) + CLOCKS_APART for each in listed)

    def test_what_is_discarded_is_gone_and_can_be_stored_again(self, image_store: SweepableImageStore) -> None:
        sha256, other = image_store.put(b"needed by nobody"), image_store.put(b"needed")
        [listed] = [each for each in image_store.stored() if each.sha256 == sha256]
        assert image_store.discard(listed)
        assert image_store.discard(listed)  # as after a crash
        assert not image_store.has(sha256)
        assert [each.sha256 for each in image_store.stored()] == [other]
        assert image_store.get(image_store.put(b"needed by nobody")) == b"needed by nobody"

    def test_what_was_stored_again_since_it_was_listed_is_not_discarded(self, image_store: SweepableImageStore) -> None:
        sha256 = image_store.put(b"needed again")
        [listed] = image_store.stored()
        assert not image_store.discard(replace(listed, stored_at=listed.stored_at - timedelta(seconds=1)))
        assert image_store.has(sha256)

    def test_many_threads_put_the_same_and_other_bytes(self, image_store: SweepableImageStore) -> None:
        contents = [os.urandom(2_000) for _ in range(8)] * 4
        with ThreadPoolExecutor(8) as pool:
            names = list(pool.map(image_store.put, contents))
        assert [image_store.get(name) for name in names] == contents


def test_folder_sweeps_what_a_killed_writer_left_and_spares_a_living_one(tmp_path: Path) -> None:
    killed = (
        "import os, pathlib, sys\n"
        "from services.shared.adapters import folder_image_store as module\n"
        "module._sync_folder = lambda folder: None\n"
        "pathlib.Path.replace = lambda self, target: os._exit(9)\n"
        "module.FolderImageStore(pathlib.Path(sys.argv[1])).put(b'x' * 1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False, timeout=180)
    assert done.returncode == 9
    assert len(list((tmp_path / "incoming").iterdir())) == 1
    FolderImageStore(tmp_path)
    assert list((tmp_path / "incoming").iterdir()) == []


def test_folder_heals_damaged_bytes_when_they_are_put_again(tmp_path: Path) -> None:
    under_test = _folder(tmp_path)
    sha256 = under_test.store.put(b"an original")
    under_test.damage(sha256)
    under_test.store.put(b"an original")
    assert under_test.store.get(sha256) == b"an original"


def test_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    store = FolderImageStore(tmp_path / "images")
    (tmp_path / "images" / "incoming").rmdir()
    (tmp_path / "images" / "incoming").write_bytes(b"")
    with pytest.raises(DependencyUnavailable):
        store.put(b"bytes")


def test_sealed_bytes_that_no_key_points_to_are_listed_by_their_own_name(tmp_path: Path) -> None:
    """What a writer leaves that is killed after the sealed bytes and before the key."""
    under_test = _sealed(tmp_path / "images")
    kept = under_test.store.put(b"whole")
    beneath = FolderImageStore(tmp_path / "images")
    cut_off = beneath.put(b"sealed under a key that nobody wrote down")
    listed = {each.sha256: each for each in under_test.store.stored()}
    assert set(listed) == {kept, cut_off}
    assert under_test.store.discard(listed[cut_off])
    assert list(beneath.names()) == [listed[kept].name]
    assert under_test.store.get(kept) == b"whole"


def test_folder_knows_when_the_same_bytes_came_again(tmp_path: Path) -> None:
    store = FolderImageStore(tmp_path)
    sha256 = store.put(b"sent twice")
    os.utime(next(tmp_path.rglob(sha256)), (1_000_000, 1_000_000))
    [listed] = store.stored()
    store.put(b"sent twice")
    assert not store.discard(listed)
    assert store.has(sha256)
