"""F15 on real servers: the disk of the database, and that of the object store, is full. Writes are refused, reads go
on, nothing that was refused is there, and it recovers when there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.sql_ledger import SqlLedger
from services.ingest.bootstrap import MIGRATIONS
from services.ingest.enrolling.enrolment import NewEnrolment
from services.shared.adapters.minio_image_store import MinioImageStore
from services.shared.database import create_engine, migrate
from services.shared.errors import AuditUnavailable, DependencyUnavailable
from services.shared.settings import DatabaseSettings
from tests.contract.test_enrolment_ledger import new
from tests.faults.test_f15_disk_full import fill, top_up
from tests.integration.audit.store_contract import store_of
from tests.stack.databases import database_on
from tests.stack.servers.minio import s3_server
from tests.stack.servers.postgres import postgres_server
from tests.stack.test_image_store_minio import connection_to
from tests.support.fault_report import record
from tests.support.waiting import once_available, wait_until
from tests.unit.audit.builders import local_log, statement

_MANY = 200  # tries, of which each takes more of what is left of the last free page


@contextmanager
def small_disk(size: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small disk of its own, on which the servers that are made meanwhile keep their data."""
    folder = Path(tempfile.mkdtemp(prefix="likeness-small-disk-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"needs root and the right to mount a small tmpfs: {mounted.stderr.strip()}")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    try:
        yield folder
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def test_f15_the_disk_of_postgresql_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with small_disk("256m", monkeypatch) as disk:
        server, url = postgres_server()
        server.start()
        try:
            with database_on(url) as ledger_url, database_on(url) as log_url:
                accepted = _ledger_fills(disk, ledger_url)
                entries = _log_fills(disk, log_url, tmp_path)
        finally:
            server.discard()
    record("F15", "the disk of the ledger, then of the log, is full", "PostgreSQL", times=2)
    assert min(accepted, entries) > 0


def _ledger_fills(disk: Path, url: str) -> int:
    """How many enrolments were acknowledged."""
    engine = create_engine(DatabaseSettings(url=url))
    migrate(engine, MIGRATIONS)
    committer = GroupCommitter(engine)
    ledger = SqlLedger(engine, committer, "one")
    told = [_wide("before")]
    ledger.accept(told)
    refused: list[NewEnrolment] = []
    with fill(disk) as filler:
        for attempt in range(_MANY):
            top_up(filler)
            batch = [_wide(f"full-{attempt}-{number}") for number in range(20)]
            try:
                ledger.accept(batch)
            except DependencyUnavailable:
                refused = batch
                break
            told += batch
        assert refused, "the ledger went on although its disk is full"
        assert once_available(lambda: ledger.view(told[0].enrolment_id)) is not None, "reads go on"
    (disk / "filler").unlink()
    after = [_wide("after")]
    once_available(lambda: ledger.accept(after))
    with engine.connect() as connection:
        held = set(connection.scalars(sa.text("SELECT enrolment_id FROM enrolments")))
    assert held == {each.enrolment_id for each in [*told, *after]}, "what was refused is not there by halves"
    committer.close()
    engine.dispose()
    return len(held)


def _wide(subject: str) -> NewEnrolment:
    """As long as a row gets, so that the last free page is soon used up."""
    return replace(new(subject=subject), lawful_basis="x" * 1500)


def _log_fills(disk: Path, url: str, folder: Path) -> int:
    """How many entries were acknowledged."""
    with local_log(folder, store=store_of(url)) as local:
        told = 0

        def appends(number: int) -> bool:
            nonlocal told
            try:
                local.log.append(statement(number))
            except AuditUnavailable:
                return False
            told += 1
            return True

        assert appends(0)
        with fill(disk) as filler:
            for number in range(1, _MANY * 10):
                top_up(filler)
                if not appends(number):
                    break
            else:
                raise AssertionError("the log went on although its disk is full")
        (disk / "filler").unlink()
        wait_until(lambda: appends(number), 180, "the log to be written again")
    store = store_of(url)
    assert [entry.sequence for entry in store.scan(0, told)] == list(range(told)), "no gap, and nothing by halves"
    assert store.size() == told
    store.close()
    return told


def test_f15_the_disk_of_the_object_store_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk("256m", monkeypatch) as disk:
        server, address = s3_server()
        if not address.kind.startswith("minio"):
            pytest.skip("the stand-in sets its own volumes aside")
        server.start()
        try:
            store = MinioImageStore(connection_to(address))
            before = once_available(lambda: store.put(b"before"))
            refused: list[bytes] = []
            with fill(disk) as filler:
                for number in range(_MANY):
                    top_up(filler)
                    image = b"%08d" % number + os.urandom(256 * 1024)
                    try:
                        store.put(image)
                    except DependencyUnavailable:
                        refused.append(image)
                        break
                assert refused, "the store went on although its disk is full"
                assert once_available(lambda: store.get(before)) == b"before", "reads go on"
            (disk / "filler").unlink()
            assert store.get(once_available(lambda: store.put(refused[0]))) == refused[0]
        finally:
            server.discard()
    record("F15", "the disk of the object store is full", "MinIO")
