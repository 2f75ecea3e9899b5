"""The log's own behaviour: group commit, idempotency, failing closed, checkpoints, what a start refuses."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.audit.adapters.sql_log_store import SqlLogStore
from services.audit.ports import LogWriting
from services.audit.proofs import check_consistency, check_inclusion
from services.audit.verification import VerificationFailed, parse_checkpoint
from services.audit.verifying import describe, verify
from services.shared.clock import SystemClock, rfc3339
from services.shared.errors import AuditUnavailable, ConfigurationError, Conflict, InvalidRequest, NotFound
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from tests.support.waiting import wait_until
from tests.unit.audit.builders import local_log, sqlite_store, statement

HANGS_S = 60.0
TRIGGERS = ("entry_no_update", "entry_no_delete", "entry_no_gap", "checkpoint_no_delete", "checkpoint_no_update")


class _WatchedStore(SqlLogStore):
    """A real store whose transactions are counted and can be held up or made to fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(DatabaseSettings(url=f"sqlite:///{path}"), write_timeout_s=1.0)
        self.transactions = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.failure: Exception | None = None
        self.fails_after_commit = False

    @contextmanager
    def writing(self) -> Iterator[LogWriting]:
        self.transactions += 1
        assert self.may_go_on.wait(HANGS_S), "nobody let it go on"
        if self.failure is not None and not self.fails_after_commit:
            raise self.failure
        with super().writing() as transaction:
            yield transaction
        if self.failure is not None:
            raise self.failure


def _until(condition: Callable[[], bool]) -> None:
    wait_until(condition, 60.0, "what the log does by itself", 0.005)


@pytest.mark.parametrize(("off_s", "ahead", "behind"), [(3600, 1, 0), (-3600, 0, 1), (4, 0, 0), (-1, 0, 0)])
def test_an_entry_whose_writers_clock_is_off_is_in_its_place_and_flagged(
    tmp_path: Path, off_s: int, ahead: int, behind: int
) -> None:
    with local_log(tmp_path) as local, capture_logs() as said:
        local.log.append(statement(0))
        off = rfc3339(SystemClock().now() + timedelta(seconds=off_s))
        assert local.log.append(replace(statement(1), occurred_at=off)).sequence == 1
        assert local.log.append(statement(2)).sequence == 2
    report = verify(tmp_path / "audit.sqlite", witness=tmp_path / "witness")
    assert (report.entries, report.ahead, report.behind) == (3, ahead, behind)
    assert sum("clock was off" in line for line in describe(report)) == ahead + behind
    assert [entry["of"] for entry in said if entry["event"] == "clock_ahead"] == ["search"] * ahead


def test_sequences_run_from_zero_without_gaps_across_threads_and_restarts(tmp_path: Path) -> None:
    with local_log(tmp_path) as local, ThreadPoolExecutor(16) as callers:
        first = list(callers.map(lambda number: local.log.append(statement(number)).sequence, range(200)))
    with local_log(tmp_path) as local, ThreadPoolExecutor(16) as callers:
        second = list(callers.map(lambda number: local.log.append(statement(number)).sequence, range(100)))
    assert sorted(first) == list(range(200))
    assert sorted(second) == list(range(200, 300))
    report = verify(tmp_path / "audit.sqlite", witness=tmp_path / "witness")
    assert report.entries == 300
    assert report.unsigned_entries == 0


def test_callers_that_wait_share_one_transaction(tmp_path: Path) -> None:
    store = _WatchedStore(tmp_path / "audit.sqlite")
    with local_log(tmp_path, store=store) as local, ThreadPoolExecutor(50) as callers:
        before = store.transactions
        store.may_go_on.clear()
        answers = [callers.submit(local.log.append, statement(0))]
        _until(lambda: store.transactions == before + 1)  # the first is on its way to the disk
        answers += [callers.submit(local.log.append, statement(number)) for number in range(1, 50)]
        _until(lambda: local.log._requests.qsize() == 49)
        store.may_go_on.set()
        assert sorted(answer.result(60).sequence for answer in answers) == list(range(50))
        assert store.transactions == before + 2


def test_a_lone_caller_waits_for_nobody(tmp_path: Path) -> None:
    store = _WatchedStore(tmp_path / "audit.sqlite")
    with local_log(tmp_path, store=store) as local:
        local.fill(5)
        before = store.transactions
        times = []
        for number in range(40):
            started = time.perf_counter()
            local.log.append(statement(number))
            times.append(time.perf_counter() - started)
        assert store.transactions == before + 40
        assert min(times) < 0.1  # whoever waited for others would wait every time; a disk is slow now and then


def test_an_entry_is_written_once_however_often_it_is_sent(tmp_path: Path) -> None:
    entry_id = new_id()
    with local_log(tmp_path) as local, ThreadPoolExecutor(20) as callers:
        local.fill(3)
        answers = list(callers.map(lambda _: local.log.append(statement(3, entry_id=entry_id)), range(20)))
        assert {answer.sequence for answer in answers} == {3}
        assert len({(answer.leaf_hash, answer.recorded_at) for answer in answers}) == 1
        assert local.log.size == 4
        with pytest.raises(Conflict) as conflict:
            local.log.append(statement(3, entry_id=entry_id, phase="DONE"))
        assert conflict.value.context["sequence"] == 3
    with local_log(tmp_path) as local:
        assert local.log.append(statement(3, entry_id=entry_id)) == answers[0]
        assert local.log.append(statement(4)).sequence == 4


def test_a_statement_that_is_not_well_formed_never_reaches_the_others(tmp_path: Path) -> None:
    with local_log(tmp_path) as local:
        with pytest.raises(InvalidRequest):
            local.log.append(statement(0, phase="SOMETIMES"))
        with pytest.raises(InvalidRequest, match="bytes"):
            local.log.append(statement(0, note="x" * 70_000))
        assert local.log.append(statement(0)).sequence == 0


def test_fails_closed_in_time_and_recovers_by_itself(tmp_path: Path) -> None:
    store = _WatchedStore(tmp_path / "audit.sqlite")
    with local_log(tmp_path, store=store) as local:
        local.fill(2)
        store.failure = AuditUnavailable("The disk is full.")
        with pytest.raises(AuditUnavailable, match="full"):
            local.log.append(statement(2))
        assert local.log.problems() == {"store": "The disk is full."}
        store.failure = None
        _until(lambda: not local.log.problems())  # without a caller
        assert local.log.append(statement(2)).sequence == 2


def test_a_store_that_hangs_is_refused_before_callers_give_up(tmp_path: Path) -> None:
    store = _WatchedStore(tmp_path / "audit.sqlite")
    with local_log(tmp_path) as local:
        local.fill(1)
    with local_log(tmp_path, store=store, timeout_s=0.3) as local, ThreadPoolExecutor(8) as callers:
        before = store.transactions
        store.may_go_on.clear()
        started = time.perf_counter()
        answers = [callers.submit(local.log.append, statement(0))]
        _until(lambda: store.transactions == before + 1)
        answers += [callers.submit(local.log.append, statement(number)) for number in range(1, 8)]
        for answer in answers:
            with pytest.raises(AuditUnavailable):
                answer.result(HANGS_S)
        assert time.perf_counter() - started < HANGS_S, "they heard before the store went on"
        store.may_go_on.set()
        _until(lambda: not local.log.problems())
    with local_log(tmp_path) as local:
        # The one that had been taken may have been written; those that waited were withdrawn.
        assert local.log.append(statement(9)).sequence in (1, 2)


def test_a_commit_that_took_effect_though_it_failed_is_found_again(tmp_path: Path) -> None:
    store = _WatchedStore(tmp_path / "audit.sqlite")
    entry_id = new_id()
    with local_log(tmp_path, store=store) as local:
        local.fill(3)
        store.failure, store.fails_after_commit = AuditUnavailable("The connection broke."), True
        with pytest.raises(AuditUnavailable):
            local.log.append(statement(3, entry_id=entry_id))
        store.failure = None
        assert local.log.append(statement(4)).sequence == 4
        assert local.log.append(statement(3, entry_id=entry_id)).sequence == 3
    assert verify(tmp_path / "audit.sqlite", witness=tmp_path / "witness").entries == 5


def test_a_store_exchanged_under_the_running_service_is_refused_for_good(tmp_path: Path) -> None:
    with local_log(tmp_path) as local:
        local.fill(6)
        _edit(tmp_path / "audit.sqlite", "DELETE FROM entry WHERE sequence >= 4")
        with pytest.raises(AuditUnavailable, match="not the 6"):
            local.log.append(statement(6))
        with pytest.raises(AuditUnavailable):
            local.log.append(statement(7))
        assert "log" in local.log.problems()


def test_a_removed_store_takes_nothing_more(tmp_path: Path) -> None:
    with local_log(tmp_path) as local:
        local.fill(2)
        (tmp_path / "audit.sqlite").rename(tmp_path / "elsewhere.sqlite")
        with pytest.raises(AuditUnavailable, match="gone"):
            local.log.append(statement(2))
        (tmp_path / "elsewhere.sqlite").rename(tmp_path / "audit.sqlite")
        _until(lambda: not local.log.problems())
        assert local.log.append(statement(2)).sequence == 2


def test_checkpoints_come_by_count_by_time_and_on_demand(tmp_path: Path) -> None:
    with local_log(tmp_path, entries=10) as local:
        assert local.log.checkpoint().tree_size == 0
        local.fill(25)
        _until(lambda: local.log.checkpoint().tree_size == 20)
        head = local.log.checkpoint(fresh=True)
        assert head.tree_size == 25
        assert local.log.checkpoint(fresh=True) == head  # nothing new, nothing signed
        sizes = [kept.tree_size for kept in local.store.checkpoints(-1)]
        assert sizes == [0, 10, 20, 25]
    with local_log(tmp_path, interval_s=0.2) as local:
        local.fill(1)
        _until(lambda: local.log.checkpoint().tree_size == 26)


def test_every_checkpoint_reaches_the_witness_also_after_it_was_away(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    with local_log(tmp_path, entries=5) as local:
        local.fill(10)
        _until(lambda: len(list(witness.glob("checkpoints/*/*.json"))) == 3)
        witness.rename(tmp_path / "away")
        witness.write_text("no folder")
        local.fill(10)
        witness.unlink()
        (tmp_path / "away").rename(witness)
        _until(lambda: len(list(witness.glob("checkpoints/*/*.json"))) == 5)
    names = sorted(path.name for path in witness.glob("checkpoints/*/*.json"))
    assert [int(name.partition("-")[0]) for name in names] == [0, 5, 10, 15, 20]
    head = parse_checkpoint(next(witness.glob("checkpoints/*/*20-*.json")).read_bytes())
    assert head.tree_size == 20
    assert len(list(witness.glob("keys/*.pem"))) == 1


def test_proofs_lead_to_the_signed_root(tmp_path: Path) -> None:
    with local_log(tmp_path, entries=7) as local:
        local.fill(20)
        old, new = local.store.checkpoints(0)[0], local.log.checkpoint(fresh=True)
        for sequence in range(20):
            proof = local.log.prove_inclusion(sequence, new.tree_size)
            assert proof.root_hash == new.root_hash
            check_inclusion(proof.leaf_hash, sequence, new.tree_size, proof.path, new.root_hash)
        path = local.log.prove_consistency(old.tree_size, new.tree_size)
        check_consistency(old.tree_size, new.tree_size, old.root_hash, new.root_hash, path)
        with pytest.raises(NotFound):
            local.log.prove_inclusion(20, 20)
        with pytest.raises(InvalidRequest):
            local.log.prove_inclusion(0, 21)
        with pytest.raises(InvalidRequest):
            local.log.prove_consistency(5, 21)
        with pytest.raises(InvalidRequest):
            local.log.prove_consistency(6, 5)


def _edit(path: Path, *statements: str) -> None:
    """What somebody with the file does: take the triggers away and change rows."""
    with sqlite3.connect(path) as connection:
        for trigger in TRIGGERS:
            connection.execute(f"DROP TRIGGER {trigger}")
        for change in statements:
            connection.execute(change)
    connection.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DELETE FROM entry WHERE sequence >= 17", "tail was cut"),
        ("DELETE FROM entry", "tail was cut"),
        ("DELETE FROM entry WHERE sequence = 3", "lacks 1"),
        ("UPDATE entry SET hashes = zeroblob(length(hashes)) WHERE sequence = 15", "root is another"),
        ("UPDATE checkpoint SET root_hash = zeroblob(32) WHERE tree_size = 20", "signature"),
        ("UPDATE entry SET canonical = CAST(replace(canonical, '-21', '-9') AS BLOB) WHERE sequence = 21", "entry 21"),
        ("UPDATE entry SET canonical = 'x' WHERE sequence = 21", "no entry at 21"),
    ],
)
def test_a_start_on_a_damaged_store_is_refused(tmp_path: Path, change: str, told: str) -> None:
    with local_log(tmp_path, entries=20) as local:
        local.fill(20)
        _until(lambda: local.log.checkpoint().tree_size == 20)
        local.fill(2)
        # What a kill would leave: two entries behind the newest checkpoint.
        backup = sqlite3.connect(tmp_path / "killed.sqlite")
        with sqlite3.connect(tmp_path / "audit.sqlite") as source:
            source.backup(backup)
        backup.close()
        source.close()
    path = tmp_path / "killed.sqlite"
    _edit(path, change)
    with pytest.raises(ConfigurationError, match=told), local_log(tmp_path, store=sqlite_store(path)):
        pass


def test_a_start_on_an_older_copy_is_refused_because_of_the_witness(tmp_path: Path) -> None:
    with local_log(tmp_path) as local:
        local.fill(5)
    older = (tmp_path / "audit.sqlite").read_bytes()
    with local_log(tmp_path) as local:
        local.fill(5)
    (tmp_path / "audit.sqlite").write_bytes(older)
    with pytest.raises(ConfigurationError, match="witnessed"), local_log(tmp_path):
        pass


def test_a_new_store_under_an_old_witness_is_refused(tmp_path: Path) -> None:
    with local_log(tmp_path) as local:
        local.fill(5)
    with (
        pytest.raises(ConfigurationError, match="is of the log"),
        local_log(tmp_path, store=sqlite_store(tmp_path / "anew.sqlite")),
    ):
        pass


def test_the_signing_key_is_made_once_and_never_silently_again(tmp_path: Path) -> None:
    with local_log(tmp_path) as local:
        local.fill(3)
    key = tmp_path / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    content = key.read_bytes()
    key.unlink()
    with pytest.raises(ConfigurationError, match="missing"), local_log(tmp_path):
        pass
    key.write_bytes(content)
    key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="open to everybody"), local_log(tmp_path):
        pass
    key.write_text("nonsense")
    key.chmod(0o600)
    with pytest.raises(ConfigurationError, match="cannot be read"), local_log(tmp_path):
        pass


def test_a_replaced_key_is_recorded_in_the_log_and_old_checkpoints_stay_valid(tmp_path: Path) -> None:
    with local_log(tmp_path) as local:
        local.fill(3)
    (tmp_path / "key.pem").unlink()
    with local_log(tmp_path / "other"):
        pass
    (tmp_path / "other" / "key.pem").rename(tmp_path / "key.pem")
    with local_log(tmp_path) as local:
        old, new = local.store.published_keys()
        recorded = local.store.entry(3)
        assert recorded is not None
        facts = recorded.facts()
        assert (facts["activity"], facts["operation"]) == ("audit_key", "ALTERATION")
        assert facts["details"] == {"public_key": new.public_key, "replaces": old.key_id}
        local.fill(2)
    report = verify(tmp_path / "audit.sqlite", witness=tmp_path / "witness")
    assert report.entries == 6
    assert report.newest_checkpoint is not None
    assert report.newest_checkpoint.key_id == new.key_id


def test_verify_does_not_trust_a_key_that_was_not_given(tmp_path: Path) -> None:
    with local_log(tmp_path) as local:
        local.fill(3)
    with local_log(tmp_path / "other") as other:
        other.fill(3)
    with pytest.raises(VerificationFailed) as failure:
        verify(tmp_path / "audit.sqlite", witness=tmp_path / "other" / "witness")
    assert failure.value.check == 8
