"""F15: the disk under data, databases and logs is full. Writes are refused, reads go on, and it recovers when freed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from tests.support.fault_ledger import ClientLedger, Load, judge, until_served
from tests.support.fault_report import record
from tests.support.noise import picture
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

DISK = "size=160m"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or mounted.returncode != 0:
        pytest.skip(f"needs root and the right to mount a small tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def test_f15_a_full_disk_refuses_writes_and_recovers(disk: Path) -> None:
    stub = {"LIKENESS_EMBED__MODEL__KIND": "stub"}
    with Platform(disk / "data", settings=stub) as platform:
        ledger = ClientLedger(platform)
        Load(ledger, [(f"D-{number}", picture(f"D-{number}")) for number in range(10)]).finish()
        judge(ledger)
        known = next(iter(ledger.ids))
        with platform.client("ingest", "custodian") as custodian:
            filler = fill(disk)

            def is_refused() -> bool:
                filler.seek(0, os.SEEK_END)
                top_up(filler)
                return ledger.try_once(custodian, picture("late"), f"L-{time.monotonic_ns()}").status_code == 503

            wait_until(is_refused, 180.0, "an enrolment to be refused", 0.2)
            assert custodian.get(f"/v1/enrolments/{known}").json()["state"] == "enrolled", "reads go on"
            filler.close()
            (disk / "filler").unlink()
            recovery_s = until_served(
                lambda: ledger.try_once(custodian, picture("after"), "D-after"), "an enrolment after room was made"
            )
        tally = judge(ledger)
        record("F15", "a disk of 160 MB is full", "embedded", recovery_s=recovery_s, tally=tally)


def fill(disk: Path) -> IO[bytes]:
    filler = (disk / "filler").open("wb", buffering=0)
    top_up(filler)
    return filler


def top_up(filler: IO[bytes]) -> None:
    """To the last block: what the services freed meanwhile is taken as well."""
    for size in (1 << 20, 1 << 12):
        with suppress(OSError):
            while True:
                filler.write(b"\0" * size)
