"""Making the next entry of a log."""

from __future__ import annotations

from services.audit.entries import EntryDraft, Statement, StoredEntry, draft_entry
from services.audit.ports import NewEntry
from services.audit.verification import Frontier, leaf_hash


def next_entry(statement: Statement, frontier: Frontier, recorded_at: str, draft: EntryDraft | None = None) -> NewEntry:
    """The entry at the end of the tree, which grows by it. `draft` is the statement's, where it was made before."""
    sequence = frontier.size
    canonical = (draft or draft_entry(statement)).complete(sequence, recorded_at)
    return NewEntry(
        stored=StoredEntry(sequence, canonical, frontier.append(leaf_hash(canonical))),
        entry_id=statement.entry_id,
        activity=statement.activity,
        activity_id=statement.activity_id,
        person_id=statement.person_id,
        case_reference=statement.case_reference,
        recorded_at=recorded_at,
    )
