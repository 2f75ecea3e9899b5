"""F19 for audit itself: its store locked, full, read-only, gone or slow. Refused within 2 s, told by readiness, and
well again without hand work."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.audit.verifying import verify
from services.rpc.auditing import AuditRecorder
from services.rpc.clients import open_channel
from services.shared.errors import AuditUnavailable
from services.shared.ids import new_id
from tests.integration.audit.service import AuditProcess, record_search, recorder_to
from tests.support.promises import within
from tests.support.waiting import wait_until

REFUSED_WITHIN_S = 2.2  # 2 s, and what reading the clock adds
RECOVERED_WITHIN_S = 120.0


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditProcess]:
    process = AuditProcess(tmp_path_factory.mktemp("audit")).start()
    recorder = recorder_to(process.address)
    for number in range(20):
        record_search(recorder, number)
    yield process
    process.stop()
    report = verify(process.store_path, witness=process.witness_path)
    assert report.unsigned_entries == 0


def _until(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, RECOVERED_WITHIN_S, what)


def _health(audit: AuditProcess) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
    stub = health_pb2_grpc.HealthStub(open_channel(audit.address))
    return stub.Check(health_pb2.HealthCheckRequest(service="likeness.v1.Audit"), timeout=60).status


def _assert_refuses(audit: AuditProcess) -> None:
    recorder = recorder_to(audit.address)

    def refused(number: int) -> None:
        with pytest.raises(AuditUnavailable):
            record_search(recorder, number)

    with ThreadPoolExecutor(8) as callers:
        within(REFUSED_WITHIN_S, lambda: list(callers.map(refused, range(8))))


@contextmanager
def _shut(audit: AuditProcess, repair: Callable[[], None]) -> Iterator[None]:
    """Within: the log cannot be written. After: it is asserted to be whole and in use again."""
    count = verify(audit.store_path).entries
    try:
        yield
        _assert_refuses(audit)
        _until(lambda: not audit.is_ready(), "readiness to tell")
        assert "store" in str(audit.readiness()["waiting_for"])
        _until(lambda: _health(audit) == health_pb2.HealthCheckResponse.NOT_SERVING, "gRPC health to tell")
        # Reading the log would have to be recorded, so it is refused as well, and nothing is shown.
        answer = audit.get("/v1/audit/entries", "auditor")
        assert answer.status_code == 503
        assert answer.json()["code"] == "audit_unavailable"
    finally:
        repair()
    _until(audit.is_ready, "it to recover by itself")
    _until(lambda: _health(audit) == health_pb2.HealthCheckResponse.SERVING, "gRPC health to come back")
    assert _recorded(recorder_to(audit.address), 1000) >= count


def test_f19_the_store_is_locked(audit: AuditProcess) -> None:
    other = sqlite3.connect(audit.store_path, isolation_level=None)
    with _shut(audit, other.close):
        other.execute("BEGIN IMMEDIATE")


def test_f19_the_disk_is_full(audit: AuditProcess) -> None:
    with _shut(audit, audit.free_disk):
        audit.fill_disk()


def test_f19_the_store_is_read_only(audit: AuditProcess) -> None:
    # Not the -shm file: it is mapped memory, and a process that may no longer write to its memory is killed.
    files = [str(audit.store_path), f"{audit.store_path}-wal"]
    chattr = shutil.which("chattr")
    if chattr is None or os.geteuid() != 0:
        pytest.skip("needs root and chattr to make open files read-only")

    def thaw() -> None:
        subprocess.run([chattr, "-i", *files], check=True, capture_output=True)

    frozen = subprocess.run([chattr, "+i", *files], check=False, capture_output=True, text=True)
    if frozen.returncode != 0:
        pytest.skip(f"this file system cannot freeze files: {frozen.stderr}")
    with _shut(audit, thaw):
        assert not os.access(files[0], os.W_OK)


def test_f19_the_store_is_gone(audit: AuditProcess) -> None:
    away = audit.folder / "away.sqlite"
    with _shut(audit, lambda: audit.store_path.hardlink_to(away)):
        away.hardlink_to(audit.store_path)
        audit.store_path.unlink()


def test_f19_the_service_hangs(audit: AuditProcess) -> None:
    audit.freeze()
    try:
        _assert_refuses(audit)
    finally:
        audit.thaw()
    _until(audit.is_ready, "it to recover by itself")
    _recorded(recorder_to(audit.address), 1001)


def test_f19_the_service_is_down(tmp_path: Path) -> None:
    audit = AuditProcess(tmp_path)

    def refused() -> None:
        with pytest.raises(AuditUnavailable):
            record_search(recorder_to(audit.address), 0)

    within(REFUSED_WITHIN_S, refused)
    # A client that was there before the service finds it as soon as it comes.
    recorder = recorder_to(audit.address)
    with pytest.raises(AuditUnavailable):
        record_search(recorder, 0)
    audit.start()
    assert _recorded(recorder, 0) == 0
    audit.stop()


def _recorded(recorder: AuditRecorder, number: int) -> int:
    """The sequence number of an entry, once a log that is there again has taken it."""
    found: list[int] = []
    entry_id = new_id()

    def is_recorded() -> bool:
        with suppress(AuditUnavailable):
            found.append(record_search(recorder, number, entry_id=entry_id).sequence)
        return bool(found)

    wait_until(is_recorded, RECOVERED_WITHIN_S, "the log to take an entry")
    return found[0]
