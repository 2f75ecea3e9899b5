"""The audit log beside its floors: verifying beside a bare hash chain, appending beside a bare flush to the same disk.

    python -m tests.bench.audit_log [--entries 1000000] [--appends 500] [--out build/bench]

What is compared runs in turn in the same minutes, so quote the ratios. Result: audit.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from services.audit.adapters.folder_witness import FolderWitness
from services.audit.appending import next_entry
from services.audit.opening import open_log
from services.audit.reading import export_lines
from services.audit.verifying import verify
from services.shared.clock import SystemClock, rfc3339
from tests.bench.timing import Samples, side_by_side, timed_ms
from tests.integration.audit.service import AuditProcess, record_search, recorder_to
from tests.unit.audit.builders import sqlite_store, statement

CHECKPOINT_EVERY = 1000
CALLERS = 8
VERIFY_ROUNDS = 3


def build_log(folder: Path, entries: int) -> Path:
    """A store of that many entries with a signed checkpoint every 1,000; and its export."""
    clock = SystemClock()
    store = sqlite_store(folder / "audit.sqlite")
    log = open_log(store, FolderWitness(folder / "witness"), folder / "key.pem", clock)
    tree = log.frontier
    while tree.size < entries:
        count = min(CHECKPOINT_EVERY, entries - tree.size)
        with store.writing() as transaction:
            moment = rfc3339(clock.now())
            transaction.add_entries([next_entry(statement(tree.size), tree, moment) for _ in range(count)])
            transaction.add_checkpoint(log.signer.sign(log.log_id, tree.size, tree.root(), clock.now()))
    head = store.newest_checkpoint()
    assert head is not None
    with (folder / "export.jsonl").open("wb") as stream:
        stream.writelines(export_lines(store, head))
    store.close()
    return folder / "export.jsonl"


def hash_chain(path: Path) -> bytes:
    """What a log without a tree would do at least: read each line, hash it with the hash before."""
    chained = bytes(32)
    with path.open("rb") as stream:
        for line in stream:
            chained = hashlib.sha256(chained + line).digest()
    return chained


def verifying(folder: Path, entries: int) -> dict[str, Any]:
    """Each in turn; seconds of the wall clock and, because others use the machine, of the processor."""
    export = build_log(folder, entries)
    actions: dict[str, Callable[[], object]] = {
        "hash_chain": partial(hash_chain, export),
        "verify_export": partial(verify, export),
        "verify_store": partial(verify, folder / "audit.sqlite"),
    }
    wall_s: dict[str, list[float]] = {name: [] for name in actions}
    cpu_s: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(VERIFY_ROUNDS):
        for name, action in actions.items():
            used, started = process_time(), perf_counter()
            action()
            wall_s[name].append(perf_counter() - started)
            cpu_s[name].append(process_time() - used)
    return {
        "entries": entries,
        "export_mb": round(export.stat().st_size / 1e6),
        "wall_s": {name: round(median(times), 2) for name, times in wall_s.items()},
        "cpu_s": {name: round(median(times), 2) for name, times in cpu_s.items()},
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def bare_flush(folder: Path) -> Callable[[], None]:
    """The floor of one durable append: a kilobyte at the end of a file of the same disk, flushed."""
    descriptor = os.open(folder / "floor", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def flush() -> None:
        os.write(descriptor, b"x" * 1024)
        os.fdatasync(descriptor)

    return flush


def appending(folder: Path, appends: int) -> dict[str, Any]:
    """Over gRPC to a real process: one caller in turn with the bare flush, then eight at once."""
    audit = AuditProcess(folder / "service").start()
    try:
        recorder = recorder_to(audit.address)
        alone = side_by_side(
            {"append": lambda: record_search(recorder, 1), "bare_flush": bare_flush(folder)}, rounds=appends
        )
        together = Samples()
        started = perf_counter()
        with ThreadPoolExecutor(CALLERS) as callers:
            numbers = range(appends * 4)
            together.values_ms.extend(
                callers.map(lambda number: timed_ms(lambda: record_search(recorder, number)), numbers)
            )
        per_s = len(together.values_ms) / (perf_counter() - started)
    finally:
        audit.stop()
    return {
        **{name: _times(samples) for name, samples in alone.items()},
        f"append_by_{CALLERS}_callers": {**_times(together), "per_s": round(per_s)},
    }


def _times(samples: Samples) -> dict[str, float]:
    return {f"p{percent}_ms": round(samples.percentile(percent), 2) for percent in (50, 95, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--appends", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="likeness-bench-audit-") as folder:
        figures = {
            "appending": appending(Path(folder), options.appends),
            "verifying": verifying(Path(folder), options.entries),
        }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "audit.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
