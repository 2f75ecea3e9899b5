"""What the log says of one activity and of what it made, proven: the audit part of a disclosure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.audit.entries import StoredEntry
from services.audit.log import AuditLog, Inclusion
from services.audit.ports import EntryFilter, LogStore, PublishedKey
from services.audit.verification import KEY_ACTIVITY, Checkpoint
from services.shared.errors import InvalidRequest

PAGE = 500
MAX_ENTRIES = 2000  # of one search; views and judgements of the longest case are a fraction of it
_REQUEST = "request:"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """The document by which a key vouches for the one that replaces it, and that key's id."""

    document: str
    by: str


@dataclass(frozen=True, slots=True)
class ProvenActivity:
    """Entries in the order of the log, each with its proof under the checkpoint, and every key of the log."""

    entries: Sequence[tuple[StoredEntry, Inclusion]]
    checkpoint: Checkpoint
    keys: Sequence[PublishedKey]
    # By key id: the document by which the key before vouches for it.
    endorsements: Mapping[str, Endorsement]


class ProveActivity:
    """Finds the entries of one activity, and those of its case that name what it made; proves each."""

    def __init__(self, log: AuditLog, store: LogStore) -> None:
        self._log = log
        self._store = store

    def __call__(self, activity_id: str, case_reference: str, objects: Sequence[str]) -> ProvenActivity:
        """Raises InvalidRequest (nothing asked for, too many), AuditUnavailable."""
        if not activity_id:
            raise InvalidRequest("`activity_id` is empty.", advice="Say of which activity.")
        checkpoint = self._log.checkpoint(fresh=True)
        found = {entry.sequence: entry for entry in self._all(EntryFilter(activity_id=activity_id), checkpoint)}
        if case_reference and objects:
            of_case = list(self._all(EntryFilter(case_reference=case_reference), checkpoint))
            found |= _naming(of_case, frozenset(objects))
        if len(found) > MAX_ENTRIES:
            raise InvalidRequest(
                f"{len(found)} entries belong to it; at most {MAX_ENTRIES} go into a disclosure.",
                advice="Export the whole log instead: likeness audit export.",
            )
        proven = [
            (found[sequence], self._log.prove_inclusion(sequence, checkpoint.tree_size)) for sequence in sorted(found)
        ]
        changes = (entry.facts() for entry in self._all(EntryFilter(activity=KEY_ACTIVITY), checkpoint))
        endorsements = {
            facts["activity_id"]: Endorsement(facts["details"]["endorsement"], facts["details"]["replaces"])
            for facts in changes
            if "endorsement" in facts["details"]
        }
        return ProvenActivity(proven, checkpoint, self._store.published_keys(), endorsements)

    def _all(self, wanted: EntryFilter, checkpoint: Checkpoint) -> Iterator[StoredEntry]:
        before = checkpoint.tree_size
        while before > 0:
            page = self._store.page(wanted, before, PAGE)
            yield from page
            if len(page) < PAGE:
                return
            before = page[-1].sequence


def _naming(entries: Sequence[StoredEntry], objects: frozenset[str]) -> Mapping[int, StoredEntry]:
    """Entries that bear one of the objects, and those of the requests that stand beside it in one of them."""
    facts: list[tuple[StoredEntry, frozenset[str]]] = [(entry, _objects(entry.facts())) for entry in entries]
    requests = {name for _, own in facts if own & objects for name in own if name.startswith(_REQUEST)}
    wanted = objects | requests
    return {entry.sequence: entry for entry, own in facts if own & wanted}


def _objects(facts: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(facts["objects"])
