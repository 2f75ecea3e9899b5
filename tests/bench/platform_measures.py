"""What the running platform takes: a search by stage, several callers, bulk enrolment, memory, a start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.local.deployment import SERVICES
from services.rpc.clients import LedgerClient
from services.rpc.v1 import common_pb2, ingest_pb2
from tests.bench.timing import Samples, timed_ms
from tests.support.platform import Platform

WATCHLIST = "custody"
OWNER = "northshire"
STAGES = ("gate", "detect", "template", "gallery", "audit", "total")
FORM: dict[str, Any] = {
    "case_reference": "BENCH-1",
    "purpose": "prevention_and_detection",
    "offence": "burglary",
    "source": "cctv",
    "watchlists": [WATCHLIST],
}


@dataclass(slots=True)
class SearchCaller:
    """One client of the REST search API; keeps the stage times of every answer."""

    client: httpx.Client
    jpeg: bytes
    stages: dict[str, Samples] = field(default_factory=lambda: {stage: Samples() for stage in STAGES})

    def search(self) -> None:
        timings = self.answer()["timings_ms"]
        for stage, samples in self.stages.items():
            samples.values_ms.append(float(timings[stage]))

    def answer(self, **fields: Any) -> dict[str, Any]:
        files = {"image": ("probe.jpg", self.jpeg)}
        answer = self.client.post("/v1/searches", files=files, data={**FORM, **fields})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def forget(self) -> None:
        for samples in self.stages.values():
            samples.values_ms.clear()


def fill(platform: Platform, count: int) -> float:
    """Bring the watchlist to `count` references with synthetic ones; seconds it took."""
    actor = common_pb2.Actor(person_id="benchmark", force=OWNER, roles=["custodian"])
    request = ingest_pb2.FillSyntheticRequest(
        watchlist_id=WATCHLIST, owner=OWNER, until_count=count, seed=1, actor=actor
    )
    started = time.perf_counter()
    with platform.channel("ingest") as channel:
        LedgerClient(channel).fill_synthetic(request)
    return time.perf_counter() - started


def several_callers(platform: Platform, jpeg: bytes, callers: int, each: int) -> dict[str, float]:
    """`callers` clients search at once, `each` times: searches a second, and how long one waits."""
    samples = Samples()

    def one(_number: int) -> None:
        with platform.client("search", "operator") as client:
            caller = SearchCaller(client, jpeg)
            for _ in range(each):
                samples.values_ms.append(timed_ms(caller.search))

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(one, range(callers)))
    seconds = time.perf_counter() - started
    return {
        "callers": callers,
        "searches_per_s": round(callers * each / seconds, 2),
        "p50_ms": round(samples.p50, 1),
        "p95_ms": round(samples.percentile(95), 1),
    }


def write_folder(folder: Path, images: Iterable[tuple[str, bytes]]) -> int:
    """A folder of images, each given with its subject, and the manifest that `likeness enrol` reads; how many."""
    folder.mkdir(parents=True)
    lines = ["path,subject_id"]
    for number, (subject_id, content) in enumerate(images):
        (folder / f"{number:06}.jpg").write_bytes(content)
        lines.append(f"{number:06}.jpg,{subject_id}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return len(lines) - 1


def bulk_enrolment(platform: Platform, folder: Path, count: int, timeout_s: float = 3600) -> dict[str, float]:
    """`likeness enrol` over the folder until every image has its outcome."""
    token = platform.data.root / "bench-custodian.token"
    token.write_text(platform.token("custodian"), "utf-8")
    command = [sys.executable, "-m", "services.cli", "enrol", str(folder), "--watchlist", WATCHLIST, "--owner", OWNER]
    command += ["--lawful-basis", "pace_1984_s64a", "--captured-on", "2026-01-01", "--token", str(token)]
    command += ["--url", platform.url("ingest")]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stdout + done.stderr
    return {"images": count, "seconds": round(seconds, 2), "images_per_s": round(count / seconds, 2)}


def memory_mb(platform: Platform) -> dict[str, float]:
    """Proportional set size by service with all its workers, in MB: shared pages are counted once."""
    found: dict[str, float] = {}
    for service in SERVICES:
        process = psutil.Process(platform.process(service).pid)
        total = 0
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += member.memory_full_info().pss
        found[service] = round(total / 1e6, 1)
    found["all"] = round(sum(found.values()), 1)
    return found


def start_up(platform: Platform, jpeg: bytes) -> dict[str, float]:
    """Seconds from starting every process on the filled data to the first answered search."""
    platform.stop()
    started = time.perf_counter()
    platform.start()
    ready = time.perf_counter() - started
    with platform.client("search", "operator") as client:
        SearchCaller(client, jpeg).search()
    return {"ready_s": round(ready, 2), "first_search_s": round(time.perf_counter() - started, 2)}


def stage_table(stages: Mapping[str, Samples]) -> dict[str, dict[str, float | int]]:
    return {stage: samples.as_json() for stage, samples in stages.items()}


def repeated(action: Callable[[], object], rounds: int) -> Samples:
    return Samples([timed_ms(action) for _ in range(rounds)])
