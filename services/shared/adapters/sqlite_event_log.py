"""Events in a SQLite file: the embedded adapter of the EventLog port."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from time import monotonic, sleep

from services.shared.errors import DependencyUnavailable
from services.shared.ports.event_log import Event, ReceivedEvent, Redaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    offset INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    headers TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_topic ON events (topic, offset);
CREATE TABLE IF NOT EXISTS commits (
    consumer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, topic)
) WITHOUT ROWID;
"""
_PARTITION = 0  # one file, one order: a topic has a single partition
_POLL_INTERVAL_S = 0.05


class SqliteEventLog:
    """One file that several processes publish to and read from.

    Order is the order of publishing over all keys. One member of a group reads at a time; it holds a lock on a file
    beside the log, which the operating system frees when the process dies, and then the next member goes on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        with _translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(path)
            self._connection.executescript(_SCHEMA)

    def publish(self, events: Sequence[Event]) -> None:
        rows = [(e.topic, e.key, e.value, json.dumps(dict(e.headers))) for e in events]
        with self._lock, _translated(self._path), _transaction(self._connection):
            self._connection.executemany("INSERT INTO events (topic, key, value, headers) VALUES (?, ?, ?, ?)", rows)

    def subscribe(self, topics: Sequence[str], group: str) -> SqliteSubscription:
        return SqliteSubscription(self._path, topics, group)

    def lag(self, topics: Sequence[str], group: str) -> int:
        query = """SELECT count(*) FROM events WHERE topic = ? AND offset >=
                   coalesce((SELECT next_offset FROM commits WHERE consumer_group = ? AND topic = ?), 0)"""
        with self._lock, _translated(self._path):
            return sum(self._connection.execute(query, (topic, group, topic)).fetchone()[0] for topic in topics)

    def redact(self, topics: Sequence[str], is_due: Callable[[ReceivedEvent], bool]) -> Redaction:
        count = 0
        with _translated(self._path):
            connection = _connect(self._path)
            try:
                for topic in topics:
                    due = [event.offset for event in _all_of(connection, topic) if is_due(event)]
                    with self._lock, _transaction(connection):
                        connection.executemany("UPDATE events SET value = x'' WHERE offset = ?", [(o,) for o in due])
                    count += len(due)
                if count:
                    # Pages that were split or merged keep remains of what they held; a new file has none.
                    connection.execute("VACUUM")
                _empty_write_ahead_log(connection)
            finally:
                connection.close()
        return Redaction(count)

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class SqliteSubscription:
    """A member of a consumer group. See the port."""

    def __init__(self, path: Path, topics: Sequence[str], group: str) -> None:
        self._path = path
        self._topics = tuple(dict.fromkeys(topics))
        self._group = group
        self._positions: dict[str, int] = {}
        self._is_leader = False
        with _translated(path):
            self._connection = _connect(path)
            self._lock_file = os.open(self._lock_path(), os.O_RDWR | os.O_CREAT, 0o640)

    def poll(self, max_events: int, timeout_s: float) -> Sequence[ReceivedEvent]:
        deadline = monotonic() + timeout_s
        while True:
            with _translated(self._path):
                events = self._read(max_events) if self._lead() else []
            remaining_s = deadline - monotonic()
            if events or remaining_s <= 0:
                return events
            sleep(min(_POLL_INTERVAL_S, remaining_s))

    def commit(self) -> None:
        if not self._is_leader:
            return  # nothing has been polled
        rows = [(self._group, topic, position) for topic, position in self._positions.items()]
        with _translated(self._path), _transaction(self._connection):
            self._connection.executemany("INSERT OR REPLACE INTO commits VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        self._is_leader = False
        self._connection.close()
        os.close(self._lock_file)

    def _lock_path(self) -> Path:
        # A group's name may hold anything; its digest is a safe file name.
        digest = hashlib.sha256(self._group.encode()).hexdigest()[:16]
        return self._path.with_name(f"{self._path.name}.group-{digest}")

    def _lead(self) -> bool:
        """Whether this member is the group's reader now; positions are read when it becomes so."""
        if self._is_leader:
            return True
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        committed = self._connection.execute(
            "SELECT topic, next_offset FROM commits WHERE consumer_group = ?", (self._group,)
        )
        known = dict(committed.fetchall())
        self._positions = {topic: known.get(topic, 0) for topic in self._topics}
        self._is_leader = True
        return True

    def _read(self, max_events: int) -> list[ReceivedEvent]:
        found: list[ReceivedEvent] = []
        query = """SELECT topic, offset, key, value, headers FROM events
                   WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT ?"""
        for topic, position in self._positions.items():
            rows = self._connection.execute(query, (topic, position, max_events))
            found.extend(
                ReceivedEvent(name, _PARTITION, offset, key, value, json.loads(headers))
                for name, offset, key, value, headers in rows
            )
        found.sort(key=lambda event: event.offset)
        chosen = found[:max_events]
        for event in chosen:
            self._positions[event.topic] = event.offset + 1
        return chosen


def _all_of(connection: sqlite3.Connection, topic: str) -> Iterator[ReceivedEvent]:
    """Every event of a topic that has content, one after the other, because each may hold an image."""
    query = """SELECT topic, offset, key, value, headers FROM events
               WHERE topic = ? AND offset > ? AND length(value) > 0 ORDER BY offset LIMIT 1"""
    after = -1
    while row := connection.execute(query, (topic, after)).fetchone():
        name, after, key, value, headers = row
        yield ReceivedEvent(name, _PARTITION, after, key, value, json.loads(headers))


def _empty_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Leave no earlier page behind. Readers that are just reading are waited for."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the write-ahead log is in use")


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are written out by `_transaction`; the driver's own implicit ones are off.
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise DependencyUnavailable(
            f"The event log {path} cannot be used: {error}.",
            advice="Operators: check that the disk is there, writable and not full.",
        ) from error
