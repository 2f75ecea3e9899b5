"""The ports of audit: the store of the log and the witness outside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from services.audit.entries import StoredEntry
from services.audit.merkle import Hashes, Node
from services.audit.verification import Checkpoint


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry to insert, with the texts that the log is searched by."""

    stored: StoredEntry
    entry_id: str
    activity: str
    activity_id: str
    person_id: str
    case_reference: str
    recorded_at: str


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A public signing key (PEM) of the log. `since_size`: how many entries there were when it came into use."""

    key_id: str
    public_key: str
    since_size: int
    published_at: str


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries an auditor asks for; None does not narrow. Times are RFC 3339, `recorded_before` exclusive."""

    activity: str | None = None
    activity_id: str | None = None
    case_reference: str | None = None
    person_id: str | None = None
    recorded_from: str | None = None
    recorded_before: str | None = None


class LogWriting(Protocol):
    """One transaction of the only writer."""

    def size(self) -> int:
        """How many entries the log has."""
        ...

    def find(self, entry_ids: Sequence[str]) -> dict[str, StoredEntry]:
        """Those of the ids that are in the log already."""
        ...

    def node_hashes(self, nodes: Iterable[Node]) -> Hashes:
        """The hashes of complete subtrees. Raises IntegrityError when one is missing."""
        ...

    def add_entries(self, entries: Sequence[NewEntry]) -> None:
        """Append them, in the order of their sequence."""
        ...

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep a signed checkpoint over the entries so far."""
        ...

    def add_key(self, key: PublishedKey) -> None:
        """Publish a key that signs from now on."""
        ...


class LogStore(Protocol):
    """The durable log. Append-only: no call changes or removes anything, and the store itself refuses to.

    Every call raises AuditUnavailable when the store cannot be read or written. Contract tests:
    tests/integration/audit/test_store.py, run for every adapter.
    """

    def open(self, new_log_id: str, created_at: str) -> str:
        """Bring the schema up to date and return the log's id: that of the store, or the new one if it has none."""
        ...

    def writing(self) -> AbstractContextManager[LogWriting]:
        """An exclusive transaction: durable when the block ends, without effect when the block raises."""
        ...

    def probe(self) -> None:
        """Write something durably that is no entry: returns only if the store can be written."""
        ...

    def size(self) -> int:
        """One more than the highest sequence number."""
        ...

    def count(self) -> int:
        """How many entries are there: fewer than `size` if somebody took some out. Reads an index, not the entries."""
        ...

    def entry(self, sequence: int) -> StoredEntry | None:
        """The entry at that place, from 0; None past the end, or where somebody took it out."""
        ...

    def scan(self, start: int, end: int) -> Iterator[StoredEntry]:
        """Entries [start, end) in order."""
        ...

    def page(self, wanted: EntryFilter, before: int, limit: int) -> Sequence[StoredEntry]:
        """The newest entries with a sequence below `before`, newest first."""
        ...

    def count_of(self, activity: str, before: int) -> int:
        """How many entries of an activity have a sequence below `before`."""
        ...

    def nth_of(self, activity: str, number: int) -> StoredEntry | None:
        """The entry of an activity with that place among its own, from 0, in the order of the log."""
        ...

    def node_hashes(self, nodes: Iterable[Node]) -> Hashes:
        """The hashes of complete subtrees. Raises IntegrityError when one is missing."""
        ...

    def newest_checkpoint(self) -> Checkpoint | None:
        """The one over the most entries."""
        ...

    def checkpoints(self, after_size: int) -> Sequence[Checkpoint]:
        """Checkpoints over more than `after_size` entries, smallest first."""
        ...

    def published_keys(self) -> Sequence[PublishedKey]:
        """Oldest first."""
        ...

    def close(self) -> None: ...


class Witness(Protocol):
    """Keeps checkpoints and public keys where who can write to the store cannot. Raises DependencyUnavailable."""

    def newest(self) -> Checkpoint | None:
        """The checkpoint over the most entries; IntegrityError when one cannot be read."""
        ...

    def publish_key(self, key: PublishedKey) -> None:
        """Keep a public key beside the checkpoints; the same again changes nothing."""
        ...

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint durably and for ever. Never replaces another; the same again changes nothing."""
        ...
