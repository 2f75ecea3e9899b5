"""The platform on real servers, told so by settings alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stack.databases import database_on
from tests.stack.servers.minio import S3Address
from tests.support.platform import Platform

DATABASES = ("ingest", "search", "audit")


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the four servers are."""

    kafka: str
    milvus: str
    s3: S3Address
    postgres: str


@dataclass(frozen=True, slots=True)
class Names:
    """What this platform has on the shared servers, so that no other test meets it."""

    custody_topic: str
    group: str
    images: str
    probes: str
    collection: str

    @classmethod
    def new(cls) -> Names:
        mark = secrets.token_hex(6)
        return cls(f"custody-{mark}.v1", f"ingest-{mark}", f"images-{mark}", f"probes-{mark}", f"references_{mark}")


@dataclass(frozen=True, slots=True)
class RealPlatform:
    platform: Platform
    names: Names
    databases: Mapping[str, str]


def settings(servers: Servers, names: Names, databases: Mapping[str, str]) -> dict[str, str]:
    """The environment that puts every adapter on its server; docs/operations/real-servers.md has the same."""
    ingest, search = "LIKENESS_INGEST__", "LIKENESS_SEARCH__"
    s3 = {
        "KIND": "minio",
        "ENDPOINT": servers.s3.endpoint,
        "ACCESS_KEY": servers.s3.access_key,
        "SECRET_KEY": servers.s3.secret_key,
    }
    return {
        **{f"LIKENESS_{name.upper()}__DATABASE__URL": databases[name] for name in DATABASES},
        f"{ingest}EVENTS__KIND": "kafka",
        f"{ingest}EVENTS__BOOTSTRAP_SERVERS": servers.kafka,
        f"{ingest}CUSTODY_FEED__TOPIC": names.custody_topic,
        f"{ingest}CUSTODY_FEED__GROUP": names.group,
        **{f"{ingest}IMAGES__{name}": value for name, value in s3.items()},
        f"{ingest}IMAGES__BUCKET": names.images,
        f"{ingest}IMAGES__RETENTION_DAYS": "1",
        **{f"{search}PROBES__{name}": value for name, value in s3.items()},
        f"{search}PROBES__BUCKET": names.probes,
        f"{search}GALLERY__KIND": "milvus",
        f"{search}GALLERY__URI": servers.milvus,
        f"{search}GALLERY__COLLECTION": names.collection,
    }


@contextmanager
def real_platform(servers: Servers, root: Path, more: Mapping[str, str] | None = None) -> Iterator[RealPlatform]:
    """A running platform on databases, topics, buckets and a collection of its own; `more` are further settings."""
    names = Names.new()
    with ExitStack() as stack:
        databases = {name: stack.enter_context(database_on(servers.postgres)) for name in DATABASES}
        platform = stack.enter_context(Platform(root, settings={**settings(servers, names, databases), **(more or {})}))
        yield RealPlatform(platform, names, databases)
