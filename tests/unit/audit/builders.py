"""A log in a folder, driven directly, and statements to append."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.audit.adapters.folder_witness import FolderWitness
from services.audit.adapters.sql_log_store import SqlLogStore
from services.audit.entries import Statement
from services.audit.log import AuditLog
from services.audit.ports import LogStore
from services.audit.settings import CheckpointSettings
from services.audit.witnessing import Witnessing
from services.shared.clock import SystemClock, rfc3339
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from services.shared.telemetry import Metrics


def statement(number: int = 0, *, entry_id: str | None = None, phase: str = "INTENT", note: str = "") -> Statement:
    return Statement(
        entry_id=entry_id or new_id(),
        operation="CONSULTATION",
        phase=phase,
        activity="search",
        activity_id=f"search-{number}",
        person_id=f"operator-{number % 5}",
        force="northshire",
        roles=("operator",),
        service="search",
        purpose="crime_investigation",
        case_reference=f"NS/2026/{number % 7:06d}",
        objects=("watchlist:custody",),
        details={"number": str(number), "note": note},
        occurred_at=rfc3339(SystemClock().now()),
    )


def sqlite_store(path: Path) -> SqlLogStore:
    return SqlLogStore(DatabaseSettings(url=f"sqlite:///{path}"), write_timeout_s=10.0)


@dataclass
class LocalLog:
    """An opened, started log of this process."""

    log: AuditLog
    store: LogStore
    witnessing: Witnessing
    metrics: Metrics

    def fill(self, count: int) -> None:
        """Append, many at a time where there are many: they share flushes, and their order does not matter then."""
        start = self.log.size
        with ThreadPoolExecutor(1 if count < 100 else 32) as callers:
            list(callers.map(lambda number: self.log.append(statement(number)), range(start, start + count)))


@contextmanager
def local_log(
    folder: Path,
    *,
    store: LogStore | None = None,
    entries: int = 1000,
    interval_s: float = 60.0,
    timeout_s: float = 15.0,
) -> Iterator[LocalLog]:
    """The log that lies in a folder (`audit.sqlite`, `key.pem`, `witness`), or a new one."""
    kept = store or sqlite_store(folder / "audit.sqlite")
    settings = CheckpointSettings(
        interval_s=interval_s,
        entries=entries,
        signing_key_path=folder / "key.pem",
        witness_path=folder / "witness",
    )
    witness = FolderWitness(settings.witness_path)
    metrics = Metrics(CollectorRegistry())
    log = AuditLog(
        store=kept,
        witness=witness,
        clock=SystemClock(),
        metrics=metrics,
        settings=settings,
        append_timeout_s=timeout_s,
    )
    witnessing = Witnessing(kept, witness, metrics, log.listen(), log.refuse)
    try:
        log.open()
        log.start()
        witnessing.start()
        yield LocalLog(log, kept, witnessing, metrics)
    finally:
        log.stop()
        witnessing.stop()
        kept.close()
