"""Adapters by settings. A client library is imported only where its server is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from services.shared.adapters.clamd_scanner import ClamdScanner
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.scanned_image_store import ScannedImageStore
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.clock import Clock
from services.shared.database import create_engine
from services.shared.ports.event_log import EventLog
from services.shared.ports.image_store import SweepableImageStore
from services.shared.settings import DatabaseSettings, EventLogSettings, ImageStoreSettings, ScannerSettings
from services.shared.telemetry import Metrics

if TYPE_CHECKING:
    from services.shared.adapters.image_keys import ImageKeys
    from services.shared.adapters.minio_image_store import MinioImageStore


def open_event_log(settings: EventLogSettings) -> EventLog:
    """Raises ConfigurationError when the adapter's extra is not installed, DependencyUnavailable."""
    if settings.kind == "sqlite":
        return SqliteEventLog(settings.path)
    from services.shared.adapters.kafka_event_log import (  # noqa: PLC0415 - an extra
        KafkaConnection,
        KafkaEventLog,
        TopicDefaults,
    )

    topics = TopicDefaults(settings.partitions, settings.replication_factor, settings.retention_h)
    connection = KafkaConnection(settings.bootstrap_servers, settings.timeout_s, security=kafka_security(settings))
    return KafkaEventLog(connection, topics)


def kafka_security(settings: EventLogSettings) -> tuple[tuple[str, str], ...]:
    """The security settings in kafka-python's words; what is not set is left to its defaults."""
    named = {
        "ssl_cafile": settings.ssl_cafile,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password,
    }
    given = tuple((name, str(value)) for name, value in named.items() if value)
    return (("security_protocol", settings.security_protocol), *given)


def open_image_keys(settings: ImageStoreSettings) -> ImageKeys | None:
    """The key table of an image store; None where images are not sealed. ConfigurationError, DependencyUnavailable."""
    if not settings.keys_url:
        return None
    from services.shared.adapters.image_keys import ImageKeys  # noqa: PLC0415 - loads cryptography and SQLAlchemy
    from services.shared.adapters.master_key import MasterKeyFile  # noqa: PLC0415

    engine = create_engine(DatabaseSettings(url=settings.keys_url))
    return ImageKeys(engine, MasterKeyFile(settings.master_key_path))


def open_image_store(settings: ImageStoreSettings, keys: ImageKeys | None = None) -> SweepableImageStore:
    """With the keys that are given, which the caller looks after; or with its own, which it looks after by itself.

    ConfigurationError when the adapter's extra is missing, DependencyUnavailable.
    """
    own_keys = open_image_keys(settings) if keys is None else None
    bare = open_bare_image_store(settings)
    if keys is not None:
        from services.shared.adapters.sealed_image_store import SealedImageStore  # noqa: PLC0415

        return SealedImageStore(bare, keys)
    if own_keys is None:
        return bare
    from services.shared.adapters.self_sealing_image_store import SelfSealingImageStore  # noqa: PLC0415

    store = SelfSealingImageStore(bare, own_keys)
    store.start()
    return store


def open_originals(
    settings: ImageStoreSettings,
    scanner: ScannerSettings,
    metrics: Metrics,
    clock: Clock,
    keys: ImageKeys | None = None,
) -> SweepableImageStore:
    """As `open_image_store`; what comes from outside is scanned before it is stored, where there is a scanner."""
    store = open_image_store(settings, keys)
    if not scanner.address:
        return store
    clamd = ClamdScanner(scanner.address, timeout_s=scanner.timeout_s, stream_bytes=scanner.stream_bytes)
    return ScannedImageStore(store, clamd, metrics, clock)


def scanner_in_words(settings: ScannerSettings) -> Mapping[str, str]:
    """For `/readyz`: which scanner is asked, or that there is none."""
    return {"malware_scanner": ClamdScanner.name if settings.address else "off"}


def open_sweepable(settings: ImageStoreSettings, keys: ImageKeys | None) -> SweepableImageStore:
    """The same images, as they can be gone through, with the keys that the caller looks after. Raises as above."""
    bare = open_bare_image_store(settings)
    if keys is None:
        return bare
    from services.shared.adapters.sealed_image_store import SealedImageStore  # noqa: PLC0415

    return SealedImageStore(bare, keys)


def open_bare_image_store(settings: ImageStoreSettings) -> FolderImageStore | MinioImageStore:
    """As `open_image_store`, without keys: what is sealed stays sealed."""
    if settings.kind == "folder":
        return FolderImageStore(settings.path)
    from services.shared.adapters.bucket_lifecycle import Lifecycle  # noqa: PLC0415 - an extra
    from services.shared.adapters.minio_image_store import (  # noqa: PLC0415
        MinioImageStore,
        Protection,
        S3Connection,
    )

    connection = S3Connection(
        endpoint=settings.endpoint,
        bucket=settings.bucket,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        is_secure=settings.is_secure,
    )
    lifecycle = Lifecycle(settings.noncurrent_days, settings.incomplete_upload_days)
    return MinioImageStore(connection, Protection(settings.retention_days, settings.is_encrypted, lifecycle))
