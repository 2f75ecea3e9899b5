"""The witness as an object-locked bucket (MinIO, any S3): what is there cannot be replaced or removed in time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from services.audit.ports import PublishedKey
from services.audit.verification import Checkpoint, parse_checkpoint
from services.shared.adapters.bucket_lifecycle import Lifecycle, keep_lifecycle
from services.shared.adapters.extras import require
from services.shared.clock import Clock
from services.shared.errors import ConfigurationError, DependencyUnavailable, IntegrityError
from services.shared.settings import ImageStoreSettings

_ABSENT = frozenset({"NoSuchKey", "NoSuchObject"})


class BucketWitness:
    """Witness over `keys/<key id>.pem` and `checkpoints/<day>/<tree size>-<root>.json`, as in the folder.

    Every object is locked in COMPLIANCE mode for `retention_days`: until then nobody removes or changes this version,
    whatever keys he holds. A second object of the same name would be a second version, never a replacement.
    Raises ConfigurationError (no extra, a bucket without object lock), DependencyUnavailable.
    """

    def __init__(self, settings: ImageStoreSettings, clock: Clock) -> None:
        if settings.retention_days < 1:
            raise ConfigurationError(
                "A bucket that witnesses the audit log needs a lock.",
                advice="Set LIKENESS_AUDIT__WITNESSES__BUCKET__RETENTION_DAYS to how long checkpoints are kept.",
            )
        self._minio = require("minio", "minio")
        self._settings = settings
        self._clock = clock
        self._client = self._minio.Minio(
            settings.endpoint,
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            secure=settings.is_secure,
            http_client=_http_client(),
        )
        self._is_prepared = False

    def newest(self) -> Checkpoint | None:
        with self._bucket() as bucket:
            days = [found.object_name for found in self._client.list_objects(bucket, prefix="checkpoints/")]
            if not days:
                return None
            names = [found.object_name for found in self._client.list_objects(bucket, prefix=max(days))]
            content = self._read(bucket, max(names))
        try:
            return parse_checkpoint(content)
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"The newest checkpoint of the bucket {self._settings.bucket} cannot be read: {error}",
                advice="Find out what wrote it; look at its first version.",
            ) from error

    def publish_key(self, key: PublishedKey) -> None:
        self._keep(f"keys/{key.key_id}.pem", key.public_key.encode())

    def keep(self, checkpoint: Checkpoint) -> None:
        name = f"{checkpoint.tree_size:016d}-{checkpoint.root_hash.hex()[:16]}.json"
        self._keep(f"checkpoints/{checkpoint.created_at[:10]}/{name}", checkpoint.document() + b"\n")

    def _keep(self, name: str, content: bytes) -> None:
        retention = require("minio.retention", "minio")
        until = self._clock.now() + timedelta(days=self._settings.retention_days)
        with self._bucket() as bucket:
            if self._is_there(bucket, name):
                return
            self._client.put_object(
                bucket,
                name,
                io.BytesIO(content),
                len(content),
                content_type="application/json",
                sse=require("minio.sse", "minio").SseS3() if self._settings.is_encrypted else None,
                retention=retention.Retention(require("minio.commonconfig", "minio").COMPLIANCE, until),
            )

    def _is_there(self, bucket: str, name: str) -> bool:
        try:
            self._client.stat_object(bucket, name)
        except self._minio.error.S3Error as error:
            if error.code in _ABSENT:
                return False
            raise
        return True

    def _read(self, bucket: str, name: str) -> bytes:
        answer = self._client.get_object(bucket, name)
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    @contextmanager
    def _bucket(self) -> Iterator[str]:
        """The bucket's name, once it is known to lock; errors of the store in our own words."""
        try:
            if not self._is_prepared:
                self._prepare()
            yield self._settings.bucket
        except self._minio.error.S3Error as error:
            raise DependencyUnavailable(
                f"The witness bucket {self._settings.bucket} refuses: {error.code}.",
                advice="Operators: check the bucket, the access key and its policy.",
            ) from error
        except (self._minio.error.MinioException, require("urllib3", "minio").exceptions.HTTPError, OSError) as error:
            raise DependencyUnavailable(
                f"The witness bucket at {self._settings.endpoint} does not answer: {type(error).__name__}.",
                advice="Operators: check the object store; the checkpoints that it lacks are copied by themselves.",
            ) from error

    def _prepare(self) -> None:
        bucket = self._settings.bucket
        if not self._client.bucket_exists(bucket):
            self._client.make_bucket(bucket, object_lock=True)
        try:
            self._client.get_object_lock_config(bucket)
        except self._minio.error.S3Error as error:
            if error.code != "ObjectLockConfigurationNotFoundError":
                raise
            raise ConfigurationError(
                f"The bucket {bucket} was made without object lock, so it cannot witness anything.",
                advice="Name a new bucket; it is made with the lock.",
            ) from error
        # Nothing but unfinished uploads goes by itself, and a rule that says otherwise is refused.
        keep_lifecycle(self._client, bucket, Lifecycle(), self._settings.retention_days)
        self._is_prepared = True


def _http_client() -> Any:
    urllib3 = require("urllib3", "minio")
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=2.0, read=5.0),
        retries=urllib3.Retry(total=1, backoff_factor=0.1, status_forcelist=()),
        cert_reqs="CERT_REQUIRED",
    )
