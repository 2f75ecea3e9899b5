"""What real servers still give out of somebody: events, rows, objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from minio import Minio

from services.shared.adapters.kafka_event_log import KafkaEventLog
from services.shared.ports.event_log import ReceivedEvent
from tests.stack.servers.minio import S3Address


def topics_with(kafka: KafkaEventLog, topics: Sequence[str], needles: Sequence[bytes]) -> set[str]:
    """Topics with an event whose key or value holds one of these. Nothing is dropped by looking."""
    found: set[str] = set()

    def look(event: ReceivedEvent) -> bool:
        if any(needle in event.value or needle in event.key.encode() for needle in needles):
            found.add(event.topic)
        return False

    kafka.redact(topics, look)
    return found


def tables_with(databases: Mapping[str, str], needles: Sequence[bytes]) -> set[str]:
    """Tables with a row that holds one of these, as text or as bytes."""
    texts = [needle.hex() for needle in needles]
    texts += [needle.decode() for needle in needles if needle.isascii()]
    found: set[str] = set()
    for name, url in databases.items():
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            for table in sa.inspect(connection).get_table_names():
                row = sa.cast(sa.literal_column("t"), sa.Text)
                holds = sa.or_(*(sa.func.strpos(row, text) > 0 for text in texts))
                if connection.scalar(sa.select(sa.func.count()).select_from(sa.table(table).alias("t")).where(holds)):
                    found.add(f"{name}.{table}")
        engine.dispose()
    return found


def objects_with(s3: S3Address, buckets: Sequence[str], needles: Sequence[bytes]) -> set[str]:
    """Objects of which a version, locked or covered or not, holds one of these."""
    client = Minio(s3.endpoint, s3.access_key, s3.secret_key, secure=False)
    found: set[str] = set()
    for bucket in buckets:
        for item in client.list_objects(bucket, recursive=True, include_version=True):
            if item.is_delete_marker:
                continue
            with client.get_object(bucket, str(item.object_name), version_id=item.version_id) as answer:
                content = answer.read()
            if any(needle in content for needle in needles):
                found.add(f"{bucket}/{item.object_name}")
    return found
