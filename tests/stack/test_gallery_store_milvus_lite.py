"""MilvusGalleryStore on a file of Milvus Lite: the port's contract, by the same adapter and a URI alone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.search.adapters.milvus_gallery_store import MilvusGalleryStore
from services.search.ports import GalleryStore
from services.search.settings import GallerySettings
from services.shared.ids import new_id
from tests.contract import test_gallery_store as contract
from tests.stack.servers.milvus_lite import milvus_lite
from tests.stack.test_gallery_store_milvus import empty

store = contract.store


@pytest.fixture(scope="module", autouse=True)
def library() -> Iterator[None]:
    """Milvus Lite is not among the project's packages: it is found for as long as these tests run."""
    folder = str(milvus_lite())
    sys.path.append(folder)
    yield
    importlib.import_module("milvus_lite.server_manager").server_manager_instance.release_all()
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("milvus-lite")


@pytest.fixture(scope="module")
def collection() -> str:
    return f"t_{new_id().replace('-', '')}"


@pytest.fixture
def settings(folder: Path, collection: str) -> GallerySettings:
    return GallerySettings(kind="milvus", uri=str(folder / "gallery.db"), collection=collection, timeout_s=30)


@pytest.fixture
def closed_store(settings: GallerySettings) -> Iterator[GalleryStore]:
    empty(settings)
    gallery = MilvusGalleryStore(settings)
    yield gallery
    gallery.close()


class TestExactness(contract.TestExactness):
    """The contract, held on Milvus Lite."""


class TestScope(contract.TestScope):
    """The contract, held on Milvus Lite."""


class TestVersions(contract.TestVersions):
    """The contract, held on Milvus Lite."""


class TestWithdrawal(contract.TestWithdrawal):
    """The contract, held on Milvus Lite."""


class TestLife(contract.TestLife):
    """The contract, held on Milvus Lite."""


class TestFile:
    """What only a file has."""

    def test_what_was_written_is_there_after_its_process_ended(self, folder: Path) -> None:
        chosen = GallerySettings(kind="milvus", uri=str(folder / "kept.db"), timeout_s=30)
        first = opened(chosen)
        first.put(contract.records_of(20), contract.vectors_of(20))
        first.withdraw([contract.record_of(4).reference_id], [2])
        first.close()
        released(chosen)
        second = opened(chosen)
        assert dict(second.counts()) == {("custody", "northshire"): 19}
        assert second.put([contract.record_of(4)], contract.vectors_of(1)).unchanged == 1, "withdrawn stays withdrawn"
        found = second.search(contract.vectors_of(20)[7], [contract.scope()], 1)
        assert (found.hits[0].reference, found.compared) == (contract.record_of(7), 19)
        second.close()
        released(chosen)


def opened(settings: GallerySettings) -> MilvusGalleryStore:
    store = MilvusGalleryStore(settings)
    store.open(contract.MODEL, contract.DIMENSION)
    return store


def released(settings: GallerySettings) -> None:
    """What the end of the process does: Milvus Lite serves a file until then."""
    server_manager = importlib.import_module("milvus_lite.server_manager")
    server_manager.server_manager_instance.release_server(settings.uri)
