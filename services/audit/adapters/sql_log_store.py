"""The log in a relational store: SQLite (WAL, synchronous=FULL) embedded, PostgreSQL by URL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from services.audit.entries import StoredEntry
from services.audit.merkle import Hashes, Node, node_of_stored, sequences_of
from services.audit.ports import EntryFilter, LogWriting, NewEntry, PublishedKey
from services.audit.verification import Checkpoint
from services.shared.database import create_engine, migrate
from services.shared.errors import AuditUnavailable, ConfigurationError, IntegrityError
from services.shared.settings import DatabaseSettings

MIGRATIONS = Path(__file__).parent.parent / "migrations"
SCAN_ROWS = 1000
# Any number that nothing else in the database uses: only one process writes to the log at a time.
_ADVISORY_LOCK = 0x4C494B45

_metadata = sa.MetaData()
_sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_log = sa.Table("log", _metadata, sa.Column("log_id", sa.Text), sa.Column("created_at", sa.Text))
_key = sa.Table(
    "signing_key",
    _metadata,
    sa.Column("key_id", sa.Text),
    sa.Column("public_key", sa.Text),
    sa.Column("since_size", sa.BigInteger),
    sa.Column("published_at", sa.Text),
)
_checkpoint = sa.Table(
    "checkpoint",
    _metadata,
    sa.Column("tree_size", sa.BigInteger),
    sa.Column("log_id", sa.Text),
    sa.Column("root_hash", sa.LargeBinary),
    sa.Column("created_at", sa.Text),
    sa.Column("key_id", sa.Text),
    sa.Column("signature", sa.LargeBinary),
)
_entry = sa.Table(
    "entry",
    _metadata,
    sa.Column("sequence", _sequence),
    sa.Column("entry_id", sa.Text),
    sa.Column("activity", sa.Text),
    sa.Column("activity_id", sa.Text),
    sa.Column("person_id", sa.Text),
    sa.Column("case_reference", sa.Text),
    sa.Column("recorded_at", sa.Text),
    sa.Column("hashes", sa.LargeBinary),
    sa.Column("canonical", sa.LargeBinary),
)
_heartbeat = sa.Table("heartbeat", _metadata, sa.Column("id", sa.Integer), sa.Column("beats", sa.BigInteger))

_SIZE = sa.select(sa.func.coalesce(sa.func.max(_entry.c.sequence) + 1, 0))
_STORED = sa.select(_entry.c.sequence, _entry.c.canonical, _entry.c.hashes)
_BY_ID = _STORED.add_columns(_entry.c.entry_id).where(_entry.c.entry_id.in_(sa.bindparam("entry_ids", expanding=True)))


class SqlLogStore:
    """LogStore over SQLAlchemy. `write_timeout_s` bounds how long a write waits for a lock."""

    def __init__(self, settings: DatabaseSettings, write_timeout_s: float) -> None:
        self._timeout_ms = int(write_timeout_s * 1000)
        try:
            self.engine = create_engine(settings)
        except (OSError, ImportError, sa.exc.ArgumentError) as error:
            raise ConfigurationError(
                f"the audit store cannot be used: {error}",
                advice="Correct LIKENESS_AUDIT__DATABASE__URL; PostgreSQL needs the extra `postgres`.",
            ) from error
        self._is_sqlite = self.engine.dialect.name == "sqlite"
        self._path = Path(self.engine.url.database) if self._is_sqlite and self.engine.url.database else None
        self._file: tuple[int, int] | None = None
        if self._is_sqlite:
            event.listen(self.engine, "connect", self._configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    def _configure_sqlite(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself; `_begin_sqlite` does
        connection.execute(f"PRAGMA busy_timeout={self._timeout_ms}")

    def open(self, new_log_id: str, created_at: str) -> str:
        with _translated("opened"):
            migrate(self.engine, MIGRATIONS)
            self._file = self._file_identity()
            with self.engine.begin() as connection:
                log_id = connection.scalar(sa.select(_log.c.log_id))
                if log_id is None:
                    connection.execute(_log.insert().values(log_id=new_log_id, created_at=created_at))
                return str(log_id or new_log_id)

    @contextmanager
    def writing(self) -> Iterator[LogWriting]:
        with _translated("written"), self._write() as connection:
            yield _SqlLogWriting(connection)

    def probe(self) -> None:
        with _translated("written"), self._write() as connection:
            connection.execute(_heartbeat.update().values(beats=_heartbeat.c.beats + 1))

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction that excludes every other writer, also those of other processes."""
        self._check_file()
        with self.engine.connect().execution_options(is_writing=True) as connection:
            try:
                with connection.begin():
                    if not self._is_sqlite:
                        connection.execute(sa.text(f"SET LOCAL statement_timeout = {self._timeout_ms}"))
                        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
                    yield connection
            except sa.exc.DBAPIError:
                # What a failed write leaves behind is not trusted: the next write opens a new connection.
                connection.invalidate()
                raise

    def _file_identity(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        status = self._path.stat()
        return status.st_dev, status.st_ino

    def _check_file(self) -> None:
        """A file that was removed or replaced would take writes that nobody ever finds again."""
        if self._file is None:
            return
        try:
            current = self._file_identity()
        except OSError as error:
            raise AuditUnavailable(f"The audit store is gone: {error}", advice=_ADVICE) from error
        if current != self._file:
            raise AuditUnavailable("The audit store was replaced while the service ran.", advice=_ADVICE)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with _translated("read"), self.engine.connect() as connection:
            yield connection

    def size(self) -> int:
        with self._reading() as connection:
            return int(connection.scalar(_SIZE) or 0)

    def count(self) -> int:
        with self._reading() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(_entry)) or 0)

    def entry(self, sequence: int) -> StoredEntry | None:
        with self._reading() as connection:
            row = connection.execute(_STORED.where(_entry.c.sequence == sequence)).first()
        return None if row is None else _stored(row)

    def scan(self, start: int, end: int) -> Iterator[StoredEntry]:
        # Entries never change, so each portion may be read in a transaction of its own: no long one holds the store up.
        for first in range(start, end, SCAN_ROWS):
            last = min(first + SCAN_ROWS, end)
            query = _STORED.where(_entry.c.sequence >= first, _entry.c.sequence < last).order_by(_entry.c.sequence)
            with self._reading() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                yield _stored(row)

    def page(self, wanted: EntryFilter, before: int, limit: int) -> Sequence[StoredEntry]:
        query = _STORED.where(_entry.c.sequence < before).order_by(_entry.c.sequence.desc()).limit(limit)
        for name in ("activity", "activity_id", "case_reference", "person_id"):
            value = getattr(wanted, name)
            if value is not None:
                query = query.where(_entry.c[name] == value)
        if wanted.recorded_from is not None:
            query = query.where(_entry.c.recorded_at >= wanted.recorded_from)
        if wanted.recorded_before is not None:
            query = query.where(_entry.c.recorded_at < wanted.recorded_before)
        with self._reading() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def count_of(self, activity: str, before: int) -> int:
        query = sa.select(sa.func.count()).where(_entry.c.activity == activity, _entry.c.sequence < before)
        with self._reading() as connection:
            return int(connection.scalar(query) or 0)

    def nth_of(self, activity: str, number: int) -> StoredEntry | None:
        query = _STORED.where(_entry.c.activity == activity).order_by(_entry.c.sequence).offset(number).limit(1)
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else _stored(row)

    def node_hashes(self, nodes: Iterable[Node]) -> Hashes:
        with self._reading() as connection:
            return _node_hashes(connection, nodes)

    def newest_checkpoint(self) -> Checkpoint | None:
        found = self._checkpoints(_checkpoint.c.tree_size.desc(), sa.true(), 1)
        return found[0] if found else None

    def checkpoints(self, after_size: int) -> Sequence[Checkpoint]:
        return self._checkpoints(_checkpoint.c.tree_size, _checkpoint.c.tree_size > after_size, None)

    def _checkpoints(
        self, order: sa.ColumnElement[Any], where: sa.ColumnElement[bool], limit: int | None
    ) -> list[Checkpoint]:
        query = sa.select(_checkpoint).where(where).order_by(order).limit(limit)
        with self._reading() as connection:
            return [Checkpoint(**row) for row in connection.execute(query).mappings()]

    def published_keys(self) -> Sequence[PublishedKey]:
        query = sa.select(_key).order_by(_key.c.since_size, _key.c.published_at)
        with self._reading() as connection:
            return [PublishedKey(**row) for row in connection.execute(query).mappings()]

    def close(self) -> None:
        self.engine.dispose()


class _SqlLogWriting:
    """LogWriting over one connection in its transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def size(self) -> int:
        return int(self._connection.scalar(_SIZE) or 0)

    def find(self, entry_ids: Sequence[str]) -> dict[str, StoredEntry]:
        rows = self._connection.execute(_BY_ID, {"entry_ids": list(entry_ids)})
        return {row.entry_id: _stored(row) for row in rows}

    def node_hashes(self, nodes: Iterable[Node]) -> Hashes:
        return _node_hashes(self._connection, nodes)

    def add_entries(self, entries: Sequence[NewEntry]) -> None:
        self._connection.execute(
            _entry.insert(),
            [
                {
                    "sequence": entry.stored.sequence,
                    "entry_id": entry.entry_id,
                    "activity": entry.activity,
                    "activity_id": entry.activity_id,
                    "person_id": entry.person_id,
                    "case_reference": entry.case_reference,
                    "recorded_at": entry.recorded_at,
                    "hashes": entry.stored.hashes,
                    "canonical": entry.stored.canonical,
                }
                for entry in entries
            ],
        )

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._connection.execute(
            _checkpoint.insert().values(
                tree_size=checkpoint.tree_size,
                log_id=checkpoint.log_id,
                root_hash=checkpoint.root_hash,
                created_at=checkpoint.created_at,
                key_id=checkpoint.key_id,
                signature=checkpoint.signature,
            )
        )

    def add_key(self, key: PublishedKey) -> None:
        self._connection.execute(
            _key.insert().values(
                key_id=key.key_id,
                public_key=key.public_key,
                since_size=key.since_size,
                published_at=key.published_at,
            )
        )


def _stored(row: Any) -> StoredEntry:
    if not isinstance(row.canonical, bytes) or not isinstance(row.hashes, bytes):
        raise IntegrityError(f"The audit store holds no entry at {row.sequence}.", advice=_VERIFY)
    return StoredEntry(row.sequence, row.canonical, row.hashes)


def _node_hashes(connection: sa.Connection, nodes: Iterable[Node]) -> Hashes:
    wanted = set(nodes)
    query = sa.select(_entry.c.sequence, _entry.c.hashes).where(_entry.c.sequence.in_(sequences_of(wanted)))
    stored = {row[0]: row[1] for row in connection.execute(query)}
    found = {node: node_of_stored(stored.get(node.closing_sequence, b""), node.level) for node in wanted}
    missing = sorted(node.closing_sequence for node, value in found.items() if len(value) != 32)
    if missing:
        raise IntegrityError(
            f"The audit store has no hash where entry {missing[0]} should hold one.",
            advice=_VERIFY,
        )
    return found


_ADVICE = "Operators: check that the audit store is there, writable and has room; it is used again by itself."

_VERIFY = "Run `likeness audit verify` on the store and call whoever is responsible for the log."


def _begin_sqlite(connection: sa.Connection) -> None:
    # Taking the write lock at once keeps a transaction from failing half-way because another process was quicker.
    is_writing = connection.get_execution_options().get("is_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


@contextmanager
def _translated(verb: str) -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise AuditUnavailable(f"The audit store cannot be {verb}: {cause}", advice=_ADVICE) from error
