"""The audit log's checkpoints in an object-locked bucket of a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.deleteobjects import DeleteObject
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

from services.audit.adapters.bucket_witness import BucketWitness
from services.audit.witnessing import Witnessing
from services.shared.clock import SystemClock
from services.shared.errors import ConfigurationError, LikenessError
from services.shared.ids import new_id
from services.shared.settings import ImageStoreSettings
from tests.stack.servers.minio import S3Address
from tests.support.waiting import wait_until
from tests.unit.audit.builders import local_log


def _settings(address: S3Address, bucket: str, days: int = 1) -> ImageStoreSettings:
    return ImageStoreSettings(
        kind="minio",
        endpoint=address.endpoint,
        bucket=bucket,
        access_key=address.access_key,
        secret_key=address.secret_key,
        retention_days=days,
        is_encrypted=address.kind.startswith("minio"),  # the stand-in has no key for it
    )


def _fail(error: LikenessError) -> None:
    raise AssertionError(error.detail)


def test_checkpoints_are_locked_against_everybody(s3_address: S3Address, tmp_path: Path) -> None:
    bucket = f"witness-{new_id()}"
    witness = BucketWitness(_settings(s3_address, bucket), SystemClock())
    assert witness.newest() is None
    with local_log(tmp_path, entries=4) as opened:
        copying = Witnessing(opened.store, witness, None, opened.log.listen(), _fail)
        copying.start()
        opened.fill(13)
        newest = opened.log.checkpoint(fresh=True)
        wait_until(lambda: witness.newest() == newest, 120, "the bucket to hold the newest checkpoint", 0.2)
        copying.stop()
    client = Minio(s3_address.endpoint, s3_address.access_key, s3_address.secret_key, secure=False)
    found = list(client.list_objects(bucket, recursive=True, include_version=True))
    assert sum(each.object_name.startswith("keys/") for each in found) == 1
    if s3_address.kind.startswith("minio"):
        metadata = [client.stat_object(bucket, str(each.object_name)).metadata or {} for each in found]
        assert {each.get("x-amz-server-side-encryption") for each in metadata} == {"AES256"}
    removals = [DeleteObject(each.object_name, each.version_id) for each in found]
    refused = list(client.remove_objects(bucket, removals, bypass_governance_mode=True))
    assert len(refused) == len(found)
    assert witness.newest() == newest
    witness.keep(newest)  # the same again changes nothing
    assert len(list(client.list_objects(bucket, recursive=True, include_version=True))) == len(found)


def test_a_bucket_without_a_lock_witnesses_nothing(s3_address: S3Address) -> None:
    bucket = f"plain-{new_id()}"
    Minio(s3_address.endpoint, s3_address.access_key, s3_address.secret_key, secure=False).make_bucket(bucket)
    with pytest.raises(ConfigurationError, match="without object lock"):
        BucketWitness(_settings(s3_address, bucket), SystemClock()).newest()
    with pytest.raises(ConfigurationError, match="needs a lock"):
        BucketWitness(_settings(s3_address, bucket, 0), SystemClock())


def test_a_bucket_whose_rules_drop_checkpoints_witnesses_nothing(s3_address: S3Address) -> None:
    bucket = f"expiring-{new_id()}"
    client = Minio(s3_address.endpoint, s3_address.access_key, s3_address.secret_key, secure=False)
    client.make_bucket(bucket, object_lock=True)
    rule = Rule(ENABLED, Filter(prefix=""), "clean-up", expiration=Expiration(days=30))
    client.set_bucket_lifecycle(bucket, LifecycleConfig([rule]))
    with pytest.raises(ConfigurationError, match="clean-up"):
        BucketWitness(_settings(s3_address, bucket), SystemClock()).newest()
