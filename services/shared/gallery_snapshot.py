"""What was searchable at a moment, in one id that anybody who holds the ledger can work out again.

A partition is the part of a watchlist that one owner's references make. Its digest is over the ids of its references
alone, so that it comes out the same from the ledger after a withdrawal, which gives a reference another version:

1. references go to 256 buckets by the first byte of SHA-256(reference_id);
2. a bucket's digest is SHA-256 over its ids in order of their bytes, each followed by a newline;
3. the partition's digest is SHA-256 over the 256 bucket digests in order.

The snapshot's id is SHA-256 over the canonical bytes (RFC 8785) of format, model and partitions in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from services.shared.canonical import canonical_bytes

SNAPSHOT_FORMAT = "likeness.gallery-snapshot.v1"
BUCKETS = 256


@dataclass(frozen=True, slots=True)
class Partition:
    """How many references of one owner in one watchlist, and their digest (64 hex digits)."""

    watchlist_id: str
    owner: str
    references: int
    digest: str


@dataclass(frozen=True, slots=True)
class GallerySnapshot:
    """The partitions that a search covered, in order of watchlist and owner."""

    model_id: str
    partitions: tuple[Partition, ...]
    # False where references came or went while the gallery was searched: then this is what it held just after.
    is_exact: bool = True

    @property
    def snapshot_id(self) -> str:
        return snapshot_id(self.model_id, self.partitions)

    def document(self) -> dict[str, Any]:
        """As it stands in answers and disclosures."""
        return {
            "snapshot_id": self.snapshot_id,
            "is_exact": self.is_exact,
            "model_id": self.model_id,
            "partitions": [_document(partition) for partition in self.partitions],
        }


def bucket_of(reference_id: bytes) -> int:
    return hashlib.sha256(reference_id).digest()[0]


def bucket_digest(reference_ids: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(name + b"\n" for name in sorted(reference_ids))).digest()


def partition_digest(reference_ids: Iterable[str]) -> str:
    """The digest of a partition from all its reference ids, in any order."""
    buckets: list[set[bytes]] = [set() for _ in range(BUCKETS)]
    for reference_id in reference_ids:
        name = reference_id.encode()
        buckets[bucket_of(name)].add(name)
    return digest_of_buckets([bucket_digest(bucket) for bucket in buckets])


def digest_of_buckets(digests: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def snapshot_id(model_id: str, partitions: Iterable[Partition]) -> str:
    """64 hex digits."""
    ordered = sorted(partitions, key=lambda part: (part.watchlist_id, part.owner))
    value = {"format": SNAPSHOT_FORMAT, "model_id": model_id, "partitions": [_document(part) for part in ordered]}
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def parse_snapshot(document: dict[str, Any]) -> GallerySnapshot:
    """The other way round of `GallerySnapshot.document`; ValueError when it is something else or bears another id."""
    try:
        partitions = tuple(
            Partition(str(part["watchlist"]), str(part["owner"]), int(part["references"]), str(part["digest"]))
            for part in document["partitions"]
        )
        snapshot = GallerySnapshot(str(document["model_id"]), partitions, bool(document["is_exact"]))
        stated = document["snapshot_id"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a gallery snapshot: {error}") from error
    if snapshot.snapshot_id != stated:
        raise ValueError(f"its partitions make the snapshot {snapshot.snapshot_id}, not {stated}")
    return snapshot


def _document(partition: Partition) -> dict[str, Any]:
    return {
        "watchlist": partition.watchlist_id,
        "owner": partition.owner,
        "references": partition.references,
        "digest": partition.digest,
    }
