"""What auditors may read, and that their reading is recorded as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.audit.consulting import AUDITOR, INSPECTOR, SUPERVISOR, Consulting, texts
from services.audit.entries import StoredEntry
from services.audit.export_form import entry_line, header_line
from services.audit.log import AuditLog, Inclusion
from services.audit.ports import EntryFilter, LogStore, PublishedKey
from services.audit.sampling import Sample, draw
from services.audit.statistics.aggregates import Aggregates
from services.audit.statistics.unit_figures import UnitFigures, UnitStatistics
from services.audit.verification import Checkpoint
from services.shared.clock import Clock
from services.shared.errors import NotFound
from services.shared.tokens import Principal

_BOTH = frozenset({AUDITOR, INSPECTOR})
MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first. `next_before`: where the next page starts, None when there is none."""

    entries: Sequence[StoredEntry]
    next_before: int | None
    tree_size: int


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """An entry with its proof under a signed checkpoint."""

    entry: StoredEntry
    proof: Inclusion
    checkpoint: Checkpoint


class AuditReading(Consulting):
    """The auditors' use cases. Each records a consultation: the intent before anything is read, the outcome after.

    Every call raises Forbidden (recorded too) for a caller without the role, and AuditUnavailable when the log cannot
    be written: then nothing is shown.
    """

    def __init__(self, log: AuditLog, store: LogStore, clock: Clock) -> None:
        super().__init__(log, clock)
        self._store = store
        self._statistics = UnitStatistics(store)

    def page(self, reader: Principal, wanted: EntryFilter, before: int | None, limit: int, reason: str) -> Page:
        """At most `limit` entries below the sequence `before` (None: from the newest)."""
        asked = {name: value for name in wanted.__slots__ if (value := getattr(wanted, name)) is not None}
        consultation = self._begin(reader, "audit_page", (), {**asked, **texts(reason=reason)})
        size = self._log.size
        start = size if before is None else min(before, size)
        found = self._store.page(wanted, start, limit)
        self._end(reader, consultation, {"entries": str(len(found))})
        return Page(found, found[-1].sequence if len(found) == limit and found[-1].sequence > 0 else None, size)

    def entry(self, reader: Principal, sequence: int, reason: str) -> ProvenEntry:
        """One entry, proven under the newest checkpoint, or a fresh one if it is too new. Raises NotFound."""
        consultation = self._begin(reader, "audit_entry", (f"audit_entry:{sequence}",), texts(reason=reason))
        found = self._store.entry(sequence)
        if found is None:
            self._end(reader, consultation, {"problem": "not_found"}, phase="FAILED")
            raise NotFound(f"There is no entry {sequence}.", advice="Sequence numbers run from 0 without gaps.")
        checkpoint = self._log.checkpoint()
        if checkpoint.tree_size <= sequence:
            checkpoint = self._log.checkpoint(fresh=True)
        proof = self._log.prove_inclusion(sequence, checkpoint.tree_size)
        self._end(reader, consultation, {})
        return ProvenEntry(found, proof, checkpoint)

    def sample(self, reader: Principal, seed: str, count: int, reason: str) -> Sample:
        """Random searches, drawn by the reader's seed (services/audit/sampling.py)."""
        told = {"seed": seed, "count": str(count), **texts(reason=reason)}
        consultation = self._begin(reader, "audit_sample", (f"audit_log:{self._log.log_id}",), told, roles=_BOTH)
        sample = draw(self._log, self._store, seed, count)
        self._end(reader, consultation, {"searches": str(len(sample.searches))})
        return sample

    def statistics(self, reader: Principal, months: Sequence[str], reason: str) -> UnitFigures:
        """Figures of these months, of all months when none is named: a supervisor's of the own force alone."""
        sees_all = bool(reader.roles & _BOTH)
        force = None if sees_all else reader.force
        told = texts(months=",".join(months), force=force or "", reason=reason)
        log = (f"audit_log:{self._log.log_id}",)
        consultation = self._begin(reader, "audit_statistics", log, told, roles=_BOTH | {SUPERVISOR})
        figures = self._statistics.figures(months, force)
        self._end(reader, consultation, {"entries": str(figures.entries)})
        return figures

    def transparency(self, reader: Principal, months: Sequence[str], reason: str) -> tuple[Aggregates, tuple[str, ...]]:
        """What may be published of these months, under a fresh checkpoint; and every month that the log knows."""
        log, told = (f"audit_log:{self._log.log_id}",), texts(months=",".join(months), reason=reason)
        consultation = self._begin(reader, "audit_transparency", log, told, roles=_BOTH)
        made, known = self._statistics.report(months, lambda: self._log.checkpoint(fresh=True))
        self._end(reader, consultation, {"entries": str(made.checkpoint.tree_size)})
        return made, known

    def checkpoint(self, reader: Principal, *, fresh: bool) -> Checkpoint:
        """A signed tree head says nothing about anybody, so asking for it is not recorded."""
        self._require(reader, "audit_checkpoint", _BOTH)
        return self._log.checkpoint(fresh=fresh)

    def consistency(self, reader: Principal, first_size: int, second_size: int) -> Sequence[bytes]:
        self._require(reader, "audit_consistency", _BOTH)
        return self._log.prove_consistency(first_size, second_size)

    def published_keys(self, reader: Principal) -> Sequence[PublishedKey]:
        self._require(reader, "audit_keys", _BOTH)
        return self._store.published_keys()


def export_lines(
    store: LogStore, checkpoint: Checkpoint, disclosed: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """The export of a log up to a checkpoint: a header, then every entry, each checkpoint behind the last it covers.

    The form is described in docs/audit.md; `likeness audit verify` reads it. `disclosed`: to whom, where it is.
    """
    size = checkpoint.tree_size
    log_id = checkpoint.log_id
    yield header_line(log_id, size, ((key.key_id, key.public_key) for key in store.published_keys()), disclosed)
    heads = [head for head in store.checkpoints(-1) if head.tree_size <= size]
    start = 0
    for head in heads:
        for entry in store.scan(start, head.tree_size):
            yield entry_line(entry.canonical, entry.leaf_hash)
        start = head.tree_size
        yield head.document() + b"\n"
