"""Images in an S3 store (MinIO): the adapter of the ImageStore port for more than one machine."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import structlog

from services.shared.adapters.bucket_lifecycle import Lifecycle, keep_lifecycle
from services.shared.adapters.extras import require
from services.shared.clock import Clock, SystemClock
from services.shared.errors import ConfigurationError, DependencyUnavailable, IntegrityError, NotFound
from services.shared.ports.image_store import StoredImage

_NAME = re.compile(r"[0-9a-f]{64}")
_ABSENT = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchVersion", "MethodNotAllowed"})  # the last: a delete marker
# How stores say of one object of a deletion that its lock stands in the way.
_LOCKED = frozenset({"AccessDenied", "InvalidRequest", "ObjectLocked"})
_REFUSED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket"})


@dataclass(frozen=True, slots=True)
class S3Connection:
    """Where the store is. `timeout_s` bounds connecting and every wait for bytes; one retry doubles it."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    is_secure: bool = False
    timeout_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Protection:
    """What the store does for each image beside keeping it.

    `retention_days`: an image is locked (GOVERNANCE) against deletion for so long, also by whoever holds ordinary keys;
    only erasure by law, which may bypass it, goes through. 0 switches the lock off; it cannot be switched on later for
    a bucket that was made without it. `is_encrypted`: server-side encryption with the store's own keys (SSE-S3).
    `lifecycle`: what the store drops by itself, which is never what is locked.
    """

    retention_days: int = 0
    is_encrypted: bool = False
    lifecycle: Lifecycle = field(default_factory=Lifecycle)


class MinioImageStore:
    """Content-addressed objects `ab/cd/<sha256>` in a versioned bucket, written once and verified on every read.

    A write is one conditional request (`If-None-Match: *`): it is there whole or not at all, and never replaces what is
    there. In a versioned bucket whoever may write can still put other bytes or a delete marker on top; then the version
    that has the right SHA-256 is read, and the fact is logged. Erasure removes every version.
    """

    def __init__(
        self, connection: S3Connection, protection: Protection | None = None, clock: Clock | None = None
    ) -> None:
        self._minio = require("minio", "minio")
        self._bucket = connection.bucket
        self._endpoint = connection.endpoint
        self._protection = protection or Protection()
        self._clock = clock or SystemClock()
        self._client = self._minio.Minio(
            connection.endpoint,
            access_key=connection.access_key,
            secret_key=connection.secret_key,
            secure=connection.is_secure,
            http_client=_http_client(connection),
        )
        with self._translated():
            self._prepare_bucket()

    def put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        with self._translated():
            if self._holds(sha256, len(content)):
                return sha256
            try:
                self._write(sha256, content, {"If-None-Match": "*"})
            except self._minio.error.S3Error as error:
                if error.code not in ("PreconditionFailed", "ConditionalRequestConflict"):
                    raise
                if not self._holds(sha256, len(content)):
                    self._write(
                        sha256, content, {}
                    )  # other bytes stand there: the right ones become the newest version
        return sha256

    def get(self, sha256: str) -> bytes:
        key = _key(sha256)
        with self._translated():
            content = self._read(key, None)
            if content is not None and hashlib.sha256(content).hexdigest() == sha256:
                return content
            return self._read_older_version(sha256, is_newest_damaged=content is not None)

    def has(self, sha256: str) -> bool:
        key = _key(sha256)
        with self._translated():
            return self._stat(key) is not None or any(not each.is_delete_marker for each in self._versions(key))

    def remove(self, sha256: str) -> None:
        key = _key(sha256)
        with self._translated():
            for version in list(self._versions(key)):
                self._erase(key, version.version_id)

    def names(self) -> Iterator[str]:
        """The SHA-256 of everything that is stored, in order, also of what a delete marker covers."""
        before = ""
        with self._translated():
            for each in self._client.list_objects(self._bucket, recursive=True, include_version=True):
                name = str(each.object_name).rpartition("/")[2]
                if not each.is_delete_marker and name != before and _NAME.fullmatch(name):
                    before = name
                    yield name

    def stored(self) -> Iterator[StoredImage]:
        """An image was stored last when its newest version was, of those that hold bytes."""
        with self._translated():
            listed = self._client.list_objects(self._bucket, recursive=True, include_version=True)
            for key, versions in groupby(listed, key=lambda each: str(each.object_name)):
                name = key.rpartition("/")[2]
                stored_at = [_utc(each.last_modified) for each in versions if not each.is_delete_marker]
                if stored_at and _NAME.fullmatch(name):
                    yield StoredImage(name, max(stored_at), name)

    def discard(self, image: StoredImage) -> bool:
        key = _key(image.name)
        with self._translated():
            versions = list(self._versions(key))
            holding = [each for each in versions if not each.is_delete_marker]
            if any(_utc(each.last_modified) > image.stored_at for each in holding):
                return False
            if any(self._is_locked(key, each.version_id) for each in holding):
                return False
            # Bytes before markers: where a deletion is refused half-way, what is left stays covered.
            markers = [each for each in versions if each.is_delete_marker]
            return all(self._erase_unlocked(key, each.version_id) for each in [*holding, *markers])

    def _is_locked(self, key: str, version_id: str) -> bool:
        try:
            found = self._client.stat_object(self._bucket, key, version_id=version_id)
        except self._minio.error.S3Error as error:
            if error.code in _ABSENT:
                return False
            raise
        headers = found.metadata or {}
        if headers.get("x-amz-object-lock-legal-hold") == "ON":
            return True
        until = headers.get("x-amz-object-lock-retain-until-date", "")
        return bool(until) and datetime.fromisoformat(until) > self._clock.now()

    def _prepare_bucket(self) -> None:
        client, bucket = self._client, self._bucket
        is_locked = self._protection.retention_days > 0
        if not client.bucket_exists(bucket):
            with suppress(self._minio.error.S3Error):  # another process was first; what counts is checked below
                client.make_bucket(bucket, object_lock=is_locked)
        if client.get_bucket_versioning(bucket).status != "Enabled":
            versioning = require("minio.versioningconfig", "minio")
            client.set_bucket_versioning(bucket, versioning.VersioningConfig(versioning.ENABLED))
        if is_locked and not self._bucket_can_lock():
            raise ConfigurationError(
                f"Bucket {bucket} was made without object lock, so images cannot be locked for "
                f"{self._protection.retention_days} days.",
                advice="Name a new bucket, or set retention_days to 0.",
            )
        keep_lifecycle(client, bucket, self._protection.lifecycle, self._protection.retention_days)

    def _bucket_can_lock(self) -> bool:
        try:
            self._client.get_object_lock_config(self._bucket)
        except self._minio.error.S3Error as error:
            if error.code == "ObjectLockConfigurationNotFoundError":
                return False
            raise
        return True

    def _write(self, sha256: str, content: bytes, headers: dict[str, str]) -> None:
        every = {
            **headers,
            "Content-Type": "application/octet-stream",
            # The store checks the bytes against this before it keeps them.
            "x-amz-checksum-sha256": _base64(bytes.fromhex(sha256)),
            **self._protection_headers(),
        }
        # The public put_object splits an image of more than 5 MiB into parts and has no conditional headers.
        self._client._put_object(self._bucket, _key(sha256), content, every)

    def _protection_headers(self) -> dict[str, str]:
        headers = {}
        if self._protection.is_encrypted:
            headers["x-amz-server-side-encryption"] = "AES256"
        if self._protection.retention_days > 0:
            until = self._clock.now() + timedelta(days=self._protection.retention_days)
            headers["x-amz-object-lock-mode"] = "GOVERNANCE"
            headers["x-amz-object-lock-retain-until-date"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
        return headers

    def _holds(self, sha256: str, size_bytes: int) -> bool:
        """Whether the newest version was written with this very checksum; the store checked it then."""
        found = self._stat(_key(sha256))
        if found is None or found.size != size_bytes:
            return False
        return bool(found.metadata.get("x-amz-checksum-sha256") == _base64(bytes.fromhex(sha256)))

    def _stat(self, key: str) -> Any:
        try:
            return self._client.stat_object(self._bucket, key, extra_headers={"x-amz-checksum-mode": "ENABLED"})
        except self._minio.error.S3Error as error:
            if error.code in _ABSENT:
                return None
            raise

    def _read(self, key: str, version_id: str | None) -> bytes | None:
        """The bytes of one version (None: the newest); None when there is no such version."""
        try:
            answer = self._client.get_object(self._bucket, key, version_id=version_id)
        except self._minio.error.S3Error as error:
            if error.code in _ABSENT:
                return None
            raise
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    def _versions(self, key: str) -> Iterator[Any]:
        found = self._client.list_objects(self._bucket, prefix=key, include_version=True)
        return (each for each in found if each.object_name == key)

    def _read_older_version(self, sha256: str, *, is_newest_damaged: bool) -> bytes:
        key, is_damaged = _key(sha256), is_newest_damaged
        for version in self._versions(key):
            if version.is_delete_marker:
                continue
            content = self._read(key, version.version_id)
            if content is not None and hashlib.sha256(content).hexdigest() == sha256:
                structlog.get_logger().error(
                    "image_covered", sha256=sha256, bucket=self._bucket, version=version.version_id
                )
                return content
            is_damaged = True
        if is_damaged:
            raise IntegrityError(
                f"The stored image {sha256} is not what it was, in any version.",
                advice="Operators: restore this object from the backup and find out who wrote to the bucket.",
            )
        raise NotFound(f"No image {sha256} is stored.", advice="Check the SHA-256.")

    def _erase_unlocked(self, key: str, version_id: str) -> bool:
        """False where a lock stands in the way after all, of which the store's answers said nothing before."""
        errors = self._erasure_errors(key, version_id, is_lock_bypassed=False)
        if any(str(each.code) not in _LOCKED for each in errors):
            raise DependencyUnavailable(
                f"Image {key} could not be removed from bucket {self._bucket}: {errors[0].message}.",
                advice="Try again; operators: check the object store.",
            )
        return not errors

    def _erasure_errors(self, key: str, version_id: str, *, is_lock_bypassed: bool) -> list[Any]:
        # The public remove_object cannot bypass the lock for one version; remove_objects can, for a list of one.
        removal = require("minio.deleteobjects", "minio").DeleteObject(key, version_id)
        return list(self._client.remove_objects(self._bucket, [removal], bypass_governance_mode=is_lock_bypassed))

    def _erase(self, key: str, version_id: str) -> None:
        errors = self._erasure_errors(key, version_id, is_lock_bypassed=self._protection.retention_days > 0)
        if errors:
            raise DependencyUnavailable(
                f"Image {key} could not be erased from bucket {self._bucket}: {errors[0].message}.",
                advice="Operators: give the service's key the right s3:BypassGovernanceRetention.",
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._minio.error.S3Error as error:
            advice = "Try again; operators: check the object store."
            if error.code in _REFUSED:
                advice = "Operators: check the bucket, the access key and its policy."
            raise DependencyUnavailable(
                f"The object store {self._endpoint} refuses: {error.code}.", advice=advice
            ) from error
        except (self._minio.error.MinioException, _urllib3().exceptions.HTTPError, OSError) as error:
            raise DependencyUnavailable(
                f"The object store {self._endpoint} does not answer: {type(error).__name__}.",
                advice="Try again; operators: check that the object store is up.",
            ) from error


def _key(sha256: str) -> str:
    # A name that is not a digest could name any object of the bucket.
    if not _NAME.fullmatch(sha256):
        raise NotFound("That is not the name of a stored image.", advice="Give a SHA-256 as 64 lower-case hex digits.")
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def _urllib3() -> Any:
    return require("urllib3", "minio")


def _http_client(connection: S3Connection) -> Any:
    urllib3 = _urllib3()
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=min(2.0, connection.timeout_s), read=connection.timeout_s),
        maxsize=32,
        # One retry, for a kept connection that the server had closed: an answer within twice the timeout.
        retries=urllib3.Retry(total=1, backoff_factor=0.1, status_forcelist=()),
        cert_reqs="CERT_REQUIRED",
    )
