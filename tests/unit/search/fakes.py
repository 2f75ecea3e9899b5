"""Ports of search in memory, for tests of the use cases without sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2, ingest_pb2
from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.adapters.sql_search_store import SqlSearchStore
from services.search.bootstrap import MIGRATIONS
from services.search.identification.acceptance import Accepted
from services.search.identification.operating_points import OperatingPoint
from services.search.identification.requests import ProbeSource, SearchRequest
from services.search.identification.trail import SearchTrail
from services.search.policy import Decision, PermittedScope
from services.search.ports import NewSearch
from services.shared.biometric import ModelProvenance
from services.shared.clock import Clock
from services.shared.database import create_engine, migrate
from services.shared.errors import AuditUnavailable, Conflict, LikenessError
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from services.shared.tokens import Principal
from tests.integration.search.peers import provenance

OPERATOR = Principal(
    "op-7", "northshire", frozenset({"operator"}), frozenset({"custody", "op_liberal"}), date(2999, 1, 1)
)
REQUEST = SearchRequest("C-1", "prevention_and_detection", "burglary", ProbeSource.CCTV, ("custody",))


class ManualClock:
    """Stands still until it is told to move."""

    def __init__(self) -> None:
        self._now = datetime(2026, 6, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return self._now.timestamp()

    def pass_(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class MemoryAudit:
    """Appends as the log does: one entry an id."""

    def __init__(self) -> None:
        self.entries: dict[str, audit_pb2.AuditEntry] = {}
        self.is_down = False

    def append(self, entry: audit_pb2.AuditEntry) -> audit_pb2.AppendResponse:
        if self.is_down:
            raise AuditUnavailable("down")
        known = self.entries.setdefault(entry.entry_id, entry)
        if (known.phase, dict(known.details)) != (entry.phase, dict(entry.details)):
            raise Conflict("another entry", code="audit_entry_conflict")
        return audit_pb2.AppendResponse()

    def phases(self, search_id: str) -> list[str]:
        return [audit_pb2.Phase.Name(e.phase) for e in self.entries.values() if e.activity_id == search_id]


def trail_to(audit: MemoryAudit, clock: Clock) -> SearchTrail:
    return SearchTrail(AuditRecorder(audit, "search", clock))


def open_store(folder: Path) -> tuple[SqlSearchStore, sa.Engine]:
    engine = create_engine(DatabaseSettings(url=f"sqlite:///{folder / 'search.sqlite'}"))
    migrate(engine, MIGRATIONS)
    return SqlSearchStore(engine), engine


def new_search(clock: ManualClock, *, key: str | None = None, request: SearchRequest = REQUEST) -> NewSearch:
    return NewSearch(
        search_id=new_id(),
        outcome_entry_id=new_id(),
        principal=OPERATOR,
        request=request,
        probe_sha256="a" * 64,
        probe_size_bytes=5,
        opened_at=clock.now(),
        idempotency_key=key,
    )


def accepted(
    clock: ManualClock,
    *scopes: PermittedScope,
    points: Mapping[str, OperatingPoint] | None = None,
    request: SearchRequest = REQUEST,
) -> Accepted:
    return Accepted(OPERATOR, request, b"probe", Decision(scopes, ()), points or {}, clock.now(), None)


class FakeModels:
    def __init__(self) -> None:
        self.model: ModelProvenance = provenance()
        self.error: LikenessError | None = None

    def describe_model(self) -> ModelProvenance:
        if self.error is not None:
            raise self.error
        return self.model


class FakeLedgerSource:
    """Streams `batches`; an entry that can be called is called in its place."""

    def __init__(self, *batches: ingest_pb2.ReferenceBatch | Callable[[], None]) -> None:
        self.batches: Sequence[ingest_pb2.ReferenceBatch | Callable[[], None]] = batches
        self.counts = ingest_pb2.LedgerCounts()
        self.error: LikenessError | None = None

    def count(self) -> ingest_pb2.LedgerCounts:
        return self.counts

    def read_references(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        for batch in self.batches:
            if callable(batch):
                batch()
            else:
                yield batch
        if self.error is not None:
            raise self.error


class PersistentGalleryStore(ExactGalleryStore):
    """Like a server's: holds what it has over a restart, needs no rebuild."""

    @property
    def needs_rebuild(self) -> bool:
        return False
