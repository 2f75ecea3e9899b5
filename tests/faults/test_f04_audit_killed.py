"""F4: kill -9 audit during append, at random points. No torn entry, whatever was acknowledged is there, no gaps."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.audit.verifying import verify
from services.rpc.auditing import AuditRecorder
from services.shared.errors import AuditUnavailable
from services.shared.ids import new_id
from tests.integration.audit.service import AuditProcess, record_search, recorder_to
from tests.support.fault_report import record
from tests.support.waiting import wait_until

# More by hand: LIKENESS_KILLS=100 python -m pytest tests/faults/test_f04_audit_killed.py
KILLS = int(os.environ.get("LIKENESS_KILLS", "10"))
CALLERS = 6
BOUND_S = 60.0


@dataclass
class _Ledger:
    """What the clients were told."""

    acknowledged: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    refused_after_s: list[float] = field(default_factory=list)
    surprises: list[BaseException] = field(default_factory=list)


def _append_until(recorder: AuditRecorder, ledger: _Ledger, is_over: threading.Event) -> None:
    while not is_over.is_set():
        entry_id = new_id()
        started = time.monotonic()
        try:
            answer = record_search(recorder, len(ledger.acknowledged), entry_id=entry_id)
            ledger.acknowledged[entry_id] = (answer.sequence, answer.leaf_hash)
        except AuditUnavailable:
            ledger.refused.append(entry_id)
            ledger.refused_after_s.append(time.monotonic() - started)
            is_over.wait(0.05)  # as somebody does who tries again
        except Exception as error:  # noqa: BLE001 - whatever else a caller is told is a failure of this test
            ledger.surprises.append(error)
            return


def _append_and_kill(audit: AuditProcess, ledger: _Ledger, delay_s: float) -> None:
    known = len(ledger.acknowledged)
    is_over = threading.Event()
    callers = [
        threading.Thread(target=_append_until, args=(recorder_to(audit.address), ledger, is_over))
        for _ in range(CALLERS)
    ]
    for caller in callers:
        caller.start()
    try:
        wait_until(lambda: len(ledger.acknowledged) > known, BOUND_S, "something to be appended", 0.001)
        time.sleep(delay_s)
        audit.kill()
        refused = len(ledger.refused)
        wait_until(lambda: len(ledger.refused) > refused, BOUND_S, "a caller to be refused")
    finally:
        is_over.set()
    for caller in callers:
        caller.join(BOUND_S)
        assert not caller.is_alive(), "a caller hangs"


def _stored(path: Path) -> dict[str, tuple[int, bytes]]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT entry_id, sequence, substr(hashes, 1, 32) FROM entry").fetchall()
    connection.close()
    return {entry_id: (sequence, leaf) for entry_id, sequence, leaf in rows}


def _repeat(recorder: AuditRecorder, entry_id: str) -> None:
    """As a service does: until it is in the log."""

    def is_recorded() -> bool:
        try:
            record_search(recorder, 0, entry_id=entry_id)
        except AuditUnavailable:
            return False
        return True

    wait_until(is_recorded, BOUND_S, f"{entry_id} to be recorded")


@pytest.mark.timeout(120 + 60 * KILLS)
def test_f04_nothing_acknowledged_is_lost_when_audit_is_killed(tmp_path: Path) -> None:
    chooser = random.Random(4)
    audit = AuditProcess(tmp_path, LIKENESS_AUDIT__CHECKPOINTS__ENTRIES="50")
    ledger = _Ledger()
    slowest_start_s = 0.0
    for _ in range(KILLS):
        began = time.monotonic()
        audit.start()
        slowest_start_s = max(slowest_start_s, time.monotonic() - began)
        _append_and_kill(audit, ledger, chooser.uniform(0, 0.25))
        assert ledger.surprises == []
        stored = _stored(audit.store_path)
        assert stored.items() >= ledger.acknowledged.items()
        assert sorted(sequence for sequence, _ in stored.values()) == list(range(len(stored)))
    assert max(ledger.refused_after_s) < 2.5
    assert len(ledger.acknowledged) >= KILLS
    audit.start()
    # What was refused may be repeated under its id: it is in the log once, whether or not it was written before.
    recorder = recorder_to(audit.address)
    before = _stored(audit.store_path)
    for entry_id in ledger.refused:
        existing = before.get(entry_id)
        if existing is None:
            _repeat(recorder, entry_id)
    audit.stop()
    report = verify(audit.store_path, witness=audit.witness_path)
    assert report.entries == len(set(ledger.acknowledged) | set(ledger.refused))
    assert report.unsigned_entries == 0
    record("F4", "kill -9 of audit while six callers append", "embedded", recovery_s=slowest_start_s, times=KILLS)
