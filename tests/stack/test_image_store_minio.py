"""MinioImageStore against a real object store: the port's contract, and what only a versioned store has."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from minio import Minio
from minio.error import S3Error

from services.shared.adapters.minio_image_store import MinioImageStore, Protection, S3Connection
from services.shared.errors import ConfigurationError, DependencyUnavailable, IntegrityError, NotFound
from services.shared.ids import new_id
from services.shared.ports.image_store import ImageStore
from tests.contract import test_image_store as contract
from tests.contract.test_image_store import StoreUnderTest
from tests.stack.servers.base import ServerProcess, free_ports
from tests.stack.servers.minio import S3Address, s3_server
from tests.support.promises import within
from tests.support.waiting import once_available

image_store = contract.image_store


@pytest.fixture
def connection(s3_address: S3Address) -> S3Connection:
    return connection_to(s3_address)


@pytest.fixture
def client(s3_address: S3Address) -> Minio:
    """Another client of the same store, with which tests do what the adapter never does."""
    return Minio(s3_address.endpoint, s3_address.access_key, s3_address.secret_key, secure=False)


@pytest.fixture
def under_test(connection: S3Connection, client: Minio) -> StoreUnderTest:
    def damage(sha256: str) -> None:
        erase_versions(client, connection.bucket, key_of(sha256))
        write(client, connection.bucket, sha256, b"other bytes")

    return StoreUnderTest(MinioImageStore(connection), damage)


def connection_to(address: S3Address, timeout_s: float = 60.0) -> S3Connection:
    bucket = f"images-{new_id()}"
    return S3Connection(address.endpoint, bucket, address.access_key, address.secret_key, timeout_s=timeout_s)


def key_of(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def write(client: Minio, bucket: str, sha256: str, content: bytes) -> None:
    client.put_object(bucket, key_of(sha256), io.BytesIO(content), len(content))


def versions(client: Minio, bucket: str, key: str) -> list[str]:
    return [str(each.version_id) for each in client.list_objects(bucket, prefix=key, include_version=True)]


def erase_versions(client: Minio, bucket: str, key: str) -> None:
    for version in versions(client, bucket, key):
        client.remove_object(bucket, key, version_id=version)


class TestMinioImageStore(contract.TestImageStore):
    """The contract, held on the object store."""


class TestVersions:
    def test_the_same_bytes_from_many_threads_make_one_version(self, connection: S3Connection, client: Minio) -> None:
        store = MinioImageStore(connection)
        with ThreadPoolExecutor(8) as pool:
            [sha256] = set(pool.map(store.put, [b"the same"] * 24))
        assert len(versions(client, connection.bucket, key_of(sha256))) == 1

    def test_bytes_written_on_top_do_not_hide_the_original(self, connection: S3Connection, client: Minio) -> None:
        store = MinioImageStore(connection)
        sha256 = store.put(b"an original")
        write(client, connection.bucket, sha256, b"other bytes")
        assert store.get(sha256) == b"an original"

    def test_a_delete_marker_does_not_hide_the_original(self, connection: S3Connection, client: Minio) -> None:
        store = MinioImageStore(connection)
        sha256 = store.put(b"an original")
        client.remove_object(connection.bucket, key_of(sha256))
        assert store.has(sha256)
        assert store.get(sha256) == b"an original"

    def test_putting_again_heals(self, under_test: StoreUnderTest) -> None:
        sha256 = under_test.store.put(b"an original")
        under_test.damage(sha256)
        with pytest.raises(IntegrityError):
            under_test.store.get(sha256)
        under_test.store.put(b"an original")
        assert under_test.store.get(sha256) == b"an original"

    def test_erasure_leaves_no_version(self, connection: S3Connection, client: Minio) -> None:
        store = MinioImageStore(connection)
        sha256 = store.put(b"to be erased")
        write(client, connection.bucket, sha256, b"on top")
        client.remove_object(connection.bucket, key_of(sha256))
        store.remove(sha256)
        assert versions(client, connection.bucket, key_of(sha256)) == []
        with pytest.raises(NotFound):
            store.get(sha256)

    def test_a_full_size_image_is_one_object(self, connection: S3Connection, client: Minio) -> None:
        store = MinioImageStore(connection)
        content = os.urandom(20 * 1024 * 1024)
        sha256 = store.put(content)
        assert store.get(sha256) == content
        # An object of several parts has an ETag with a dash, and was not written in one act.
        assert "-" not in str(client.stat_object(connection.bucket, key_of(sha256)).etag)


class TestProtection:
    def test_a_locked_image_resists_deletion_and_yields_to_erasure(
        self, connection: S3Connection, client: Minio
    ) -> None:
        store = MinioImageStore(connection, Protection(retention_days=30))
        sha256 = store.put(b"an original")
        [version] = versions(client, connection.bucket, key_of(sha256))
        with pytest.raises(S3Error):
            client.remove_object(connection.bucket, key_of(sha256), version_id=version)
        assert store.get(sha256) == b"an original"
        store.remove(sha256)
        assert versions(client, connection.bucket, key_of(sha256)) == []

    def test_a_sweep_leaves_what_is_locked(self, connection: S3Connection) -> None:
        store = MinioImageStore(connection, Protection(retention_days=30))
        sha256 = store.put(b"named by nothing")
        [listed] = store.stored()
        assert not store.discard(listed)
        assert store.get(sha256) == b"named by nothing"

    def test_a_bucket_without_lock_is_not_silently_used_for_locked_images(self, connection: S3Connection) -> None:
        MinioImageStore(connection)
        with pytest.raises(ConfigurationError):
            MinioImageStore(connection, Protection(retention_days=30))

    def test_a_sweep_removes_every_version_and_marker(self, connection: S3Connection, client: Minio) -> None:
        store = MinioImageStore(connection)
        sha256 = store.put(b"named by nothing")
        write(client, connection.bucket, sha256, b"on top")
        client.remove_object(connection.bucket, key_of(sha256))
        [listed] = store.stored()
        assert store.discard(listed)
        assert versions(client, connection.bucket, key_of(sha256)) == []

    def test_encryption_is_asked_for(self, connection: S3Connection, client: Minio, s3_address: S3Address) -> None:
        if not s3_address.kind.startswith("minio"):
            pytest.skip("the stand-in has no key for server-side encryption")
        store = MinioImageStore(connection, Protection(is_encrypted=True))
        sha256 = store.put(b"an original")
        metadata = client.stat_object(connection.bucket, key_of(sha256)).metadata or {}
        assert metadata.get("x-amz-server-side-encryption") == "AES256"
        assert store.get(sha256) == b"an original"
        store.put(b"an original")
        assert len(versions(client, connection.bucket, key_of(sha256))) == 1


class TestFailure:
    """Against a store of their own, which they kill and pause."""

    @pytest.fixture
    def own(self) -> Iterator[tuple[ServerProcess, S3Address]]:
        server, address = s3_server()
        server.start()
        yield server, address
        server.resume()
        server.discard()

    @pytest.mark.parametrize("fault", ["kill", "pause"])
    def test_a_store_that_is_gone_is_said_within_five_seconds(
        self, own: tuple[ServerProcess, S3Address], fault: str
    ) -> None:
        server, address = own
        impatient = connection_to(address, timeout_s=2.0)
        store: ImageStore = once_available(lambda: MinioImageStore(impatient))
        sha256 = once_available(lambda: store.put(b"before"))
        getattr(server, fault)()

        def fails(act: Callable[[], object]) -> None:
            with pytest.raises(DependencyUnavailable):
                act()

        for act in (lambda: store.put(b"during"), lambda: store.get(sha256), lambda: store.has(sha256)):
            within(5, partial(fails, act))
        if fault == "kill":
            server.start()
        else:
            server.resume()
        assert once_available(lambda: store.get(sha256)) == b"before"
        assert once_available(lambda: store.get(store.put(b"after"))) == b"after"

    def test_nobody_there_at_start(self) -> None:
        [port] = free_ports(1)
        with pytest.raises(DependencyUnavailable):
            MinioImageStore(S3Connection(f"127.0.0.1:{port}", "b-ucket", "a", "s", timeout_s=1.0))

    def test_a_wrong_key_is_said(self, connection: S3Connection) -> None:
        wrong = S3Connection(connection.endpoint, connection.bucket, connection.access_key, "wrong-secret-key")
        with pytest.raises(DependencyUnavailable, match="refuses") as refused:
            MinioImageStore(wrong)
        assert "access key" in refused.value.advice
