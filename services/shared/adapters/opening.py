"""Adapters by settings. A client library is imported only where its server is used."""

from __future__ import annotations

from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.ports.event_log import EventLog
from services.shared.ports.image_store import ImageStore
from services.shared.settings import EventLogSettings, ImageStoreSettings


def open_event_log(settings: EventLogSettings) -> EventLog:
    """Raises ConfigurationError when the adapter's extra is not installed, DependencyUnavailable."""
    if settings.kind == "sqlite":
        return SqliteEventLog(settings.path)
    from services.shared.adapters.kafka_event_log import KafkaConnection, KafkaEventLog  # noqa: PLC0415 - an extra

    return KafkaEventLog(KafkaConnection(settings.bootstrap_servers))


def open_image_store(settings: ImageStoreSettings) -> ImageStore:
    """Raises ConfigurationError when the adapter's extra is not installed, DependencyUnavailable."""
    if settings.kind == "folder":
        return FolderImageStore(settings.path)
    from services.shared.adapters.minio_image_store import (  # noqa: PLC0415 - an extra
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
    return MinioImageStore(connection, Protection(retention_days=settings.retention_days))
