"""A random sample of searches that the platform has no hand in: drawn by the inspector's seed, from a signed log.

Draw number i of a sample is entry number SHA-256("<seed>:<i>") mod n of the n entries of searches under the checkpoint,
in the order of the log. It counts where it is the first entry of its search, and otherwise the next draw is taken:
every search has one first entry, so each is as likely. Whoever holds an export draws the same sample again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from services.audit.entries import StoredEntry
from services.audit.log import AuditLog, Inclusion
from services.audit.ports import EntryFilter, LogStore
from services.audit.verification import Checkpoint

ACTIVITY = "search"
SERVICE = "search"
MAX_SAMPLE = 100
# A log in which nine of ten entries are no first ones of a search still gives a full sample.
_DRAWS_EACH = 40


@dataclass(frozen=True, slots=True)
class Sample:
    """Searches in the order in which they were drawn, each with its entries and their proofs."""

    seed: str
    population: int
    searches: Sequence[Sequence[tuple[StoredEntry, Inclusion]]]
    checkpoint: Checkpoint


def draw(log: AuditLog, store: LogStore, seed: str, count: int) -> Sample:
    """At most `count` different searches; fewer where there are no more. Raises AuditUnavailable."""
    head = log.checkpoint(fresh=True)
    population = store.count_of(ACTIVITY, head.tree_size)
    chosen: dict[str, int] = {}
    for number in range(count * _DRAWS_EACH if population else 0):
        place = int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()) % population
        entry = store.nth_of(ACTIVITY, place)
        if entry is None or len(chosen) == count:
            break
        facts = entry.facts()
        of_search = _entries(store, facts["activity_id"], head)
        if facts["service"] == SERVICE and of_search and of_search[0].sequence == entry.sequence:
            chosen.setdefault(facts["activity_id"], place)
    searches = [
        [(entry, log.prove_inclusion(entry.sequence, head.tree_size)) for entry in _entries(store, search_id, head)]
        for search_id in chosen
    ]
    return Sample(seed, population, searches, head)


def _entries(store: LogStore, search_id: str, head: Checkpoint) -> list[StoredEntry]:
    """Of one search, oldest first; there are two, rarely three."""
    found = store.page(EntryFilter(activity=ACTIVITY, activity_id=search_id), head.tree_size, 10)
    return list(reversed(found))
