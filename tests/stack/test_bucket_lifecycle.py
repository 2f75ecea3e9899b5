"""What a bucket of a real store drops by itself, and what it never drops."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, NoncurrentVersionExpiration, Rule

from services.shared.adapters.bucket_lifecycle import RULE, Lifecycle
from services.shared.adapters.minio_image_store import MinioImageStore, Protection, S3Connection
from services.shared.errors import ConfigurationError
from services.shared.ids import new_id
from tests.stack.servers.minio import S3Address, s3_server
from tests.support.waiting import wait_until


@pytest.fixture
def connection(s3_address: S3Address) -> S3Connection:
    return S3Connection(s3_address.endpoint, f"images-{new_id()}", s3_address.access_key, s3_address.secret_key)


@pytest.fixture
def client(s3_address: S3Address) -> Minio:
    return _client(s3_address)


def _client(address: S3Address) -> Minio:
    return Minio(address.endpoint, address.access_key, address.secret_key, secure=False)


def _rules(client: Minio, bucket: str) -> dict[str, Rule]:
    held = client.get_bucket_lifecycle(bucket)
    return {str(rule.rule_id): rule for rule in (held.rules if held else [])}


def _protection(noncurrent_days: int, retention_days: int = 0) -> Protection:
    return Protection(retention_days, lifecycle=Lifecycle(noncurrent_days))


def test_a_bucket_gets_the_rule_and_a_changed_setting_changes_it(connection: S3Connection, client: Minio) -> None:
    for days, retention_days in ((90, 30), (365, 30), (0, 30)):
        MinioImageStore(connection, _protection(days, retention_days))
        [rule] = _rules(client, connection.bucket).values()
        assert (rule.rule_id, rule.status) == (RULE, ENABLED)
        assert rule.expiration == Expiration(expired_object_delete_marker=True), "nothing that is current expires"
        assert rule.noncurrent_version_expiration == (NoncurrentVersionExpiration(days) if days else None)
    uploads = rule.abort_incomplete_multipart_upload
    assert uploads is None or uploads.days_after_initiation == 1  # MinIO keeps no rule about them, but drops them


def test_rules_of_others_stay_unless_they_drop_originals(connection: S3Connection, client: Minio) -> None:
    MinioImageStore(connection)
    nothing = Filter(prefix="")
    other = Rule(ENABLED, nothing, "theirs", noncurrent_version_expiration=NoncurrentVersionExpiration(400))
    client.set_bucket_lifecycle(connection.bucket, LifecycleConfig([other]))
    MinioImageStore(connection, _protection(90))
    assert set(_rules(client, connection.bucket)) == {"theirs", RULE}
    danger = Rule(ENABLED, nothing, "clean-up", expiration=Expiration(days=30))
    client.set_bucket_lifecycle(connection.bucket, LifecycleConfig([danger]))
    with pytest.raises(ConfigurationError, match="clean-up"):
        MinioImageStore(connection)


def test_nothing_may_expire_before_its_lock_ends(connection: S3Connection) -> None:
    with pytest.raises(ConfigurationError, match="locked for 30 days"):
        MinioImageStore(connection, _protection(noncurrent_days=30, retention_days=30))


class TestApplied:
    """By a store of its own, which looks for what has expired all the time and not once a minute."""

    @pytest.fixture
    def own(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Address]:
        monkeypatch.setenv("MINIO_SCANNER_CYCLE", "1s")
        monkeypatch.setenv("MINIO_SCANNER_SPEED", "fastest")
        server, address = s3_server()
        server.start()
        yield address
        server.discard()

    def test_what_is_covered_long_enough_goes_and_what_is_locked_stays(self, own: S3Address) -> None:
        if not own.kind.startswith("minio"):
            pytest.skip("only MinIO takes versions as old as they say")
        connection = S3Connection(own.endpoint, f"images-{new_id()}", own.access_key, own.secret_key)
        store = MinioImageStore(connection, _protection(noncurrent_days=90, retention_days=30))
        current = store.put(b"an original")
        client = _client(own)
        for key, covered_days_ago, lock_days in (("old", 200, 0), ("young", 10, 0), ("locked", 200, 30)):
            _write(client, connection.bucket, key, 300, lock_days)
            _write(client, connection.bucket, key, covered_days_ago, 0)
        wait_until(lambda: _count(client, connection.bucket, "old") == 1, 300, "the covered version to be dropped", 0.5)
        assert _count(client, connection.bucket, "young") == 2
        assert _count(client, connection.bucket, "locked") == 2
        assert store.get(current) == b"an original"


def _write(client: Minio, bucket: str, key: str, days_ago: int, lock_days: int) -> None:
    """A version that says it was written some days ago, as one that comes from another site does."""
    now = datetime.now(UTC)
    headers: Any = {
        "X-Minio-Source-Replication-Request": "true",
        "X-Minio-Source-Mtime": (now - timedelta(days=days_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    if lock_days:
        headers["x-amz-object-lock-mode"] = "GOVERNANCE"
        headers["x-amz-object-lock-retain-until-date"] = (now + timedelta(days=lock_days)).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        )
    # The public put_object takes no such headers.
    client._put_object(bucket, key, f"{key} {days_ago}".encode(), headers)


def _count(client: Minio, bucket: str, key: str) -> int:
    return len(list(client.list_objects(bucket, prefix=key, include_version=True)))
