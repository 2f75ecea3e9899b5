"""What the log says of one activity and of what it made, proven: the audit part of a disclosure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.audit.entries import StoredEntry
from services.audit.log import AuditLog, Inclusion
from services.audit.ports import EntryFilter, LogStore, PublishedKey
from services.audit.verification import KEY_ACTIVITY, Checkpoint
from services.shared.errors import InvalidRequest

PAGE = 500
# Of one activity in full, the newest; more looks of it, and more refusals, are counted. So there is always a bundle,
# however often a search was looked at, and what was looked at once in a year is still named.
LOOKS_IN_FULL = 500
# What changed or disclosed something stands in full as well, the newest; the longest case has some hundreds. Whoever
# writes thousands of one kind pushes out none of another: of each the newest `LOOKS_IN_FULL` are there in any case. A
# search is disclosed all the same: its own entries are always in full.
MAX_ACTS = 5000
# More people than any force has: who comes after them is counted without a name.
MAX_GROUPS = 2000
_NO_EFFECT = frozenset({"REFUSED", "FAILED"})
_REQUEST = "request:"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """The document by which a key vouches for the one that replaces it, and that key's id."""

    document: str
    by: str


@dataclass(slots=True)
class CountedEntries:
    """Entries of one person, activity and phase that are not given in full."""

    activity: str
    phase: str
    person_id: str
    count: int
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class ProvenActivity:
    """Entries in the order of the log, each with its proof under the checkpoint, and every key of the log."""

    entries: Sequence[tuple[StoredEntry, Inclusion]]
    checkpoint: Checkpoint
    keys: Sequence[PublishedKey]
    # By key id: the document by which the key before vouches for it.
    endorsements: Mapping[str, Endorsement]
    # Older looks and refusals beside the entries, and SHA-256 over their leaf hashes, the newest first; empty for none.
    counted: Sequence[CountedEntries] = ()
    counted_sha256: bytes = b""


class ProveActivity:
    """Finds the entries of one activity, and those of its case that name what it made; proves each."""

    def __init__(self, log: AuditLog, store: LogStore) -> None:
        self._log = log
        self._store = store

    def __call__(self, activity_id: str, case_reference: str, objects: Sequence[str]) -> ProvenActivity:
        """Raises InvalidRequest (nothing asked for), AuditUnavailable."""
        if not activity_id:
            raise InvalidRequest("`activity_id` is empty.", advice="Say of which activity.")
        checkpoint = self._log.checkpoint(fresh=True)
        found = _Found(activity_id)
        found.take(self._all(EntryFilter(activity_id=activity_id), checkpoint), None)
        if case_reference and objects:
            of_case = EntryFilter(case_reference=case_reference)
            wanted = frozenset(objects) | _requests_beside(self._all(of_case, checkpoint), frozenset(objects))
            found.take(self._all(of_case, checkpoint), wanted)
        proven = [
            (entry, self._log.prove_inclusion(sequence, checkpoint.tree_size))
            for sequence, entry in sorted(found.in_full.items())
        ]
        changes = (entry.facts() for entry in self._all(EntryFilter(activity=KEY_ACTIVITY), checkpoint))
        endorsements = {
            facts["activity_id"]: Endorsement(facts["details"]["endorsement"], facts["details"]["replaces"])
            for facts in changes
            if "endorsement" in facts["details"]
        }
        keys = self._store.published_keys()
        return ProvenActivity(proven, checkpoint, keys, endorsements, *found.counted_and_digest())

    def _all(self, wanted: EntryFilter, checkpoint: Checkpoint) -> Iterator[StoredEntry]:
        """The newest first."""
        before = checkpoint.tree_size
        while before > 0:
            page = self._store.page(wanted, before, PAGE)
            yield from page
            if len(page) < PAGE:
                return
            before = page[-1].sequence


@dataclass
class _Found:
    """What is given in full, and a count of the rest: what it holds does not grow with how often somebody looked."""

    activity_id: str
    in_full: dict[int, StoredEntry] = field(default_factory=dict)
    # By activity.
    _looks: Counter[str] = field(default_factory=Counter)
    _acts: Counter[str] = field(default_factory=Counter)
    _counted: dict[tuple[str, str, str], CountedEntries] = field(default_factory=dict)
    _digest: Any = field(default_factory=hashlib.sha256)

    def take(self, entries: Iterable[StoredEntry], wanted: frozenset[str] | None) -> None:
        """Entries that bear one of the objects `wanted`, all where it is None."""
        for entry in entries:
            facts = entry.facts()
            if entry.sequence in self.in_full or (wanted is not None and wanted.isdisjoint(facts["objects"])):
                continue
            if self._has_room_for(facts):
                self.in_full[entry.sequence] = entry
            else:
                self._count(entry, facts)

    def counted_and_digest(self) -> tuple[Sequence[CountedEntries], bytes]:
        counted = sorted(self._counted.values(), key=lambda one: one.first_sequence)
        return counted, self._digest.digest() if counted else b""

    def _is_look(self, facts: Mapping[str, Any]) -> bool:
        """Somebody looked, or was refused: nothing was changed and nothing left."""
        return bool(facts["operation"] == "CONSULTATION" or facts["phase"] in _NO_EFFECT)

    def _has_room_for(self, facts: Mapping[str, Any]) -> bool:
        if facts["activity_id"] == self.activity_id:
            return True  # an intent and an outcome, and what was withheld of it
        of_kind = self._looks if self._is_look(facts) else self._acts
        has_room = of_kind[facts["activity"]] < LOOKS_IN_FULL
        if of_kind is self._acts:
            has_room = has_room or self._acts.total() < MAX_ACTS
        of_kind[facts["activity"]] += has_room
        return has_room

    def _count(self, entry: StoredEntry, facts: Mapping[str, Any]) -> None:
        self._digest.update(entry.leaf_hash)
        person = facts["actor"]["person_id"]
        kind = (facts["activity"], facts["phase"], person)
        if kind not in self._counted and len(self._counted) >= MAX_GROUPS:
            kind = (facts["activity"], facts["phase"], "")
        group = self._counted.setdefault(kind, CountedEntries(*kind, 0, entry.sequence, entry.sequence))
        group.count += 1
        group.first_sequence = min(group.first_sequence, entry.sequence)


def _requests_beside(entries: Iterable[StoredEntry], objects: frozenset[str]) -> frozenset[str]:
    """The requests that stand beside one of the objects in an entry."""
    found: set[str] = set()
    for entry in entries:
        own = entry.facts()["objects"]
        if not objects.isdisjoint(own):
            found.update(name for name in own if name.startswith(_REQUEST))
    return frozenset(found)
