"""What every LogStore must hold. A test class per store inherits it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest
import sqlalchemy as sa

from services.audit.adapters.sql_log_store import SqlLogStore
from services.audit.appending import next_entry
from services.audit.entries import StoredEntry
from services.audit.merkle import frontier_of, hashes_of, nodes_of
from services.audit.ports import EntryFilter, NewEntry, PublishedKey
from services.audit.verification import Checkpoint, Frontier
from services.shared.errors import AuditUnavailable, IntegrityError
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from tests.unit.audit.builders import statement

NOW = "2026-05-09T10:00:00.000Z"
PATIENT_S = 60.0  # for a busy machine; only the test of the timeout itself is less patient


class OpenStore(Protocol):
    """Opens one and the same store again and again."""

    def __call__(self, write_timeout_s: float = PATIENT_S) -> SqlLogStore: ...


def _fill(store: SqlLogStore, count: int) -> tuple[Frontier, list[NewEntry]]:
    frontier = Frontier()
    entries = [
        next_entry(statement(n), frontier, f"2026-05-09T10:{n // 60:02d}:{n % 60:02d}.000Z") for n in range(count)
    ]
    with store.writing() as transaction:
        transaction.add_entries(entries)
    return frontier, entries


class LogStoreContract:
    """Inherited with a fixture `open_store` that opens one and the same store again and again."""

    def test_names_its_log_once(self, open_store: OpenStore) -> None:
        first, again = new_id(), new_id()
        assert open_store().open(first, NOW) == first
        assert open_store().open(again, NOW) == first

    def test_keeps_entries_exactly(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        assert (store.size(), store.count(), store.entry(0)) == (0, 0, None)
        _, entries = _fill(store, 2500)
        other = open_store()
        assert (other.size(), other.count()) == (2500, 2500)
        assert other.entry(1234) == entries[1234].stored
        assert [entry.sequence for entry in other.scan(990, 2010)] == list(range(990, 2010))
        assert list(other.scan(2499, 2500)) == [entries[2499].stored]

    def test_gives_roots_from_few_rows(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        frontier, _ = _fill(store, 1000)
        whole = [(0, 1000)]
        nodes = nodes_of(whole)
        assert len(nodes) <= 10
        known = store.node_hashes(nodes)
        assert hashes_of(whole, known) == [frontier.root()]
        assert frontier_of(1000, known).root() == frontier.root()
        with pytest.raises(IntegrityError):
            store.node_hashes(nodes_of([(0, 1001)]))

    def test_a_block_that_raises_leaves_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        frontier = Frontier()
        with pytest.raises(RuntimeError, match="stop"), store.writing() as transaction:
            transaction.add_entries([next_entry(statement(0), frontier, NOW)])
            assert transaction.size() == 1
            raise RuntimeError("stop")
        assert store.size() == 0

    def test_finds_entries_by_id(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        _, entries = _fill(store, 5)
        with store.writing() as transaction:
            found = transaction.find([entries[3].entry_id, new_id()])
        assert found == {entries[3].entry_id: entries[3].stored}

    def test_pages_newest_first_and_filters(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        _fill(store, 70)

        def sequences(wanted: EntryFilter, before: int = 70, limit: int = 100) -> list[int]:
            return [entry.sequence for entry in store.page(wanted, before, limit)]

        assert sequences(EntryFilter(), limit=3) == [69, 68, 67]
        assert sequences(EntryFilter(), before=2) == [1, 0]
        assert sequences(EntryFilter(person_id="operator-2"), before=15) == [12, 7, 2]
        assert sequences(EntryFilter(case_reference="NS/2026/000003"), before=20) == [17, 10, 3]
        assert sequences(EntryFilter(activity_id="search-33")) == [33]
        assert sequences(EntryFilter(activity="enrolment")) == []
        times = EntryFilter(recorded_from="2026-05-09T10:00:58.000Z", recorded_before="2026-05-09T10:01:01.000Z")
        assert sequences(times) == [60, 59, 58]

    def test_keeps_checkpoints_and_keys(self, open_store: OpenStore) -> None:
        store = open_store()
        log_id = store.open(new_id(), NOW)
        assert store.newest_checkpoint() is None
        heads = [Checkpoint(log_id, size, bytes([size]) * 32, NOW, "ab" * 32, b"s" * 64) for size in (0, 5, 9)]
        key = PublishedKey("ab" * 32, "PEM", 0, NOW)
        with store.writing() as transaction:
            transaction.add_key(key)
            for head in heads:
                transaction.add_checkpoint(head)
        assert store.newest_checkpoint() == heads[2]
        assert list(store.checkpoints(0)) == heads[1:]
        assert list(store.published_keys()) == [key]

    @pytest.mark.parametrize("table", ["entry", "checkpoint", "signing_key", "log"])
    @pytest.mark.parametrize("verb", ["UPDATE", "DELETE"])
    def test_refuses_to_change_or_remove(self, open_store: OpenStore, table: str, verb: str) -> None:
        store = open_store()
        log_id = store.open(new_id(), NOW)
        _fill(store, 3)
        with store.writing() as transaction:
            transaction.add_key(PublishedKey("ab" * 32, "PEM", 0, NOW))
            transaction.add_checkpoint(Checkpoint(log_id, 3, bytes(32), NOW, "ab" * 32, b"s"))
        column = {"entry": "canonical", "checkpoint": "signature", "signing_key": "public_key", "log": "created_at"}[
            table
        ]
        change = f"DELETE FROM {table}" if verb == "DELETE" else f"UPDATE {table} SET {column} = {column}"  # noqa: S608
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), store.engine.begin() as connection:
            connection.execute(sa.text(change))
        assert (store.size(), store.count()) == (3, 3)

    def test_refuses_gaps_and_second_entries(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        _, entries = _fill(store, 3)
        beyond = entries[2]
        for sequence in (1, 4):
            moved = StoredEntry(sequence, beyond.stored.canonical, beyond.stored.hashes)
            unlike = NewEntry(moved, new_id(), "a", "b", "c", "", NOW)
            with pytest.raises(AuditUnavailable, match="no gaps"), store.writing() as transaction:
                transaction.add_entries([unlike])
        assert store.size() == 3

    def test_writers_exclude_each_other(self, open_store: OpenStore) -> None:
        """Two processes on one store would each wait for the other, never interleave."""
        store = open_store()
        store.open(new_id(), NOW)
        inside = threading.Lock()

        def add(other: SqlLogStore) -> None:
            for _ in range(10):
                with other.writing() as transaction:
                    assert inside.acquire(blocking=False)
                    size = transaction.size()
                    nodes = transaction.node_hashes(nodes_of([(0, size)]))
                    transaction.add_entries([next_entry(statement(size), frontier_of(size, nodes), NOW)])
                    inside.release()

        with ThreadPoolExecutor(2) as writers:
            list(writers.map(add, [open_store(), open_store()]))
        assert (store.size(), store.count()) == (20, 20)

    def test_a_locked_store_fails_in_time(self, open_store: OpenStore) -> None:
        store = open_store()
        store.open(new_id(), NOW)
        other = open_store(write_timeout_s=0.5)
        with store.writing():
            with pytest.raises(AuditUnavailable), other.writing():
                raise AssertionError("two writers at once")
            with pytest.raises(AuditUnavailable):
                other.probe()
        other.probe()


def store_of(url: str, write_timeout_s: float = PATIENT_S) -> SqlLogStore:
    return SqlLogStore(DatabaseSettings(url=url), write_timeout_s=write_timeout_s)
