"""Load on the whole platform with a stand-in for the networks: what everything around them can carry.

    python -m tests.bench.load [--minutes 30] [--searches 20] [--enrolments 10] [--out build/bench]

Requests come at their times whether or not the ones before have been answered (an open loop), and a request's time
counts from when it was due. After the steady part ten times as much comes for 20 seconds, which has to be shed at once,
and then the steady rate again, which has to be normal within 10 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from threading import Lock, local
from typing import Any
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np

from tests.bench import platform_measures
from tests.bench.goals import UNIT_SIZE
from tests.support.platform import Platform

_BURST_FACTOR, _BURST_S = 10, 20.0
_PEOPLE = 12  # so that the limit on one person is not what is measured
_THREADS = 160
_SHED = frozenset({429, 503})
_NO_ANSWER = 0  # counted among the other statuses


@dataclass(slots=True)
class Answers:
    """What became of the requests of one kind in one part: time since due and since sent in ms, and status."""

    due_ms: list[float] = field(default_factory=list)
    sent_ms: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    due_at_s: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Of the accepted, percentiles since they were due, and one since sent: in a burst this client is late as well.
        Of the shed, since they were sent."""
        status, due, sent = np.array(self.statuses), np.array(self.due_ms), np.array(self.sent_ms)
        is_shed, is_accepted = np.isin(status, list(_SHED)), (status >= 200) & (status < 300)
        return {
            "requests": len(status),
            "accepted": int(is_accepted.sum()),
            "shed": int(is_shed.sum()),
            "other": sorted({int(value) for value in status[~is_shed & ~is_accepted]}),
            "p50_ms": _percentile(due[is_accepted], 50),
            "p95_ms": _percentile(due[is_accepted], 95),
            "p99_ms": _percentile(due[is_accepted], 99),
            "p95_since_sent_ms": _percentile(sent[is_accepted], 95),
            "shed_p50_ms": _percentile(sent[is_shed], 50),
            "shed_p95_ms": _percentile(sent[is_shed], 95),
        }


def _percentile(values: Any, percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 1) if len(values) else None


class Driver:
    """Sends searches and enrolments at their rates."""

    def __init__(self, platform: Platform, stack: ExitStack) -> None:
        self._searches = Sender(platform, "search", "operator", "/v1/searches", _SEARCH)
        self._enrolments = Sender(platform, "ingest", "custodian", "/v1/enrolments", _ENROLMENT)
        self._pool = stack.enter_context(ThreadPoolExecutor(_THREADS, thread_name_prefix="load"))
        self._lock = Lock()
        self._count = 0

    def run(self, seconds: float, searches_per_s: float, enrolments_per_s: float) -> dict[str, Answers]:
        """One part; returns when everything in it has been answered."""
        answers = {"searches": Answers(), "enrolments": Answers()}
        futures = []
        started = time.perf_counter()
        for due_s, kind in _timetable(seconds, searches_per_s, enrolments_per_s):
            time.sleep(max(0.0, started + due_s - time.perf_counter()))
            self._count += 1
            send = (self._searches if kind == "searches" else self._enrolments).send
            futures.append(self._pool.submit(self._send, send, self._count, started + due_s, answers[kind]))
        for future in futures:
            future.result()
        return answers

    def _send(self, send: Callable[[int], int], number: int, due_at_s: float, answers: Answers) -> None:
        sent_at_s = time.perf_counter()
        status = send(number)
        ended_at_s = time.perf_counter()
        with self._lock:
            answers.statuses.append(status)
            answers.due_ms.append((ended_at_s - due_at_s) * 1000)
            answers.sent_ms.append((ended_at_s - sent_at_s) * 1000)
            answers.due_at_s.append(due_at_s)


def _timetable(seconds: float, searches_per_s: float, enrolments_per_s: float) -> Iterator[tuple[float, str]]:
    kinds = (("searches", searches_per_s), ("enrolments", enrolments_per_s))
    due = [(number / rate, kind) for kind, rate in kinds for number in range(int(seconds * rate))]
    return iter(sorted(due))


class Sender:
    """Sends one kind of request, made beforehand but for its number, on connections that are kept, one a thread: this
    client shares the cores with what it measures, and a comfortable library would take one of them for itself."""

    def __init__(self, platform: Platform, service: str, role: str, path: str, form: Mapping[str, str]) -> None:
        self._address = urlsplit(platform.url(service))
        self._path = path
        self._tokens = [platform.token(role, person_id=f"load-{role}-{person}") for person in range(_PEOPLE)]
        made = [
            httpx.Request("POST", platform.url(service) + path, data=dict(form), files={"image": ("face.jpg", content)})
            for content in (_picture(number) + _NUMBER for number in range(64))
        ]
        self._requests = [(request.headers["content-type"], request.read()) for request in made]
        self._local = local()

    def send(self, number: int) -> int:
        """The status of the answer. No two requests have the same picture or reference: the stand-in's template hangs
        on a picture's bytes."""
        content_type, body = self._requests[number % len(self._requests)]
        headers = {"Content-Type": content_type, "Authorization": f"Bearer {self._tokens[number % _PEOPLE]}"}
        body = body.replace(_NUMBER, b"%08d" % number)
        try:
            return self._post(body, headers)
        except ConnectionError:  # kept, and closed by the server meanwhile
            self._local.connection = None
            return self._post(body, headers)
        except TimeoutError:
            self._local.connection = None
            return _NO_ANSWER

    def _post(self, body: bytes, headers: Mapping[str, str]) -> int:
        connection: HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = HTTPConnection(str(self._address.hostname), self._address.port, timeout=30.0)
            self._local.connection = connection
        connection.request("POST", self._path, body, dict(headers))
        answer = connection.getresponse()
        answer.read()
        return answer.status


_NUMBER = b"@NUMBER@"
_SEARCH = {**platform_measures.FORM, "case_reference": f"LOAD-{_NUMBER.decode()}"}
_ENROLMENT = {
    "watchlist": platform_measures.WATCHLIST,
    "owner": platform_measures.OWNER,
    "subject_id": f"LOAD-{_NUMBER.decode()}",
    "lawful_basis": "pace_1984_s64a",
    "captured_on": "2026-01-01",
}


def _picture(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", cv2.resize(noise, (640, 480)))[1].tobytes())


def load_run(minutes: float, searches_per_s: float, enrolments_per_s: float) -> dict[str, Any]:
    """The whole run on a platform of its own with the unit's gallery."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="likeness-load-"))
        stub = {"LIKENESS_EMBED__MODEL__KIND": "stub"}
        platform = stack.enter_context(Platform(Path(folder) / "data", settings=stub))
        platform_measures.fill(platform, UNIT_SIZE)
        driver = Driver(platform, stack)
        driver.run(5.0, searches_per_s, enrolments_per_s)
        steady = driver.run(60 * minutes, searches_per_s, enrolments_per_s)
        print(json.dumps({"steady": {kind: answers.summary() for kind, answers in steady.items()}}), flush=True)
        burst = driver.run(_BURST_S, _BURST_FACTOR * searches_per_s, _BURST_FACTOR * enrolments_per_s)
        after = driver.run(20.0, searches_per_s, enrolments_per_s)
        figures: dict[str, Any] = {
            "minutes": minutes,
            "searches_per_s": searches_per_s,
            "enrolments_per_s": enrolments_per_s,
            "steady": {kind: answers.summary() for kind, answers in steady.items()},
            "burst": {kind: answers.summary() for kind, answers in burst.items()},
            "normal_again_s": round(_normal_again_s(after["searches"], steady["searches"]), 1),
            "memory_mb": platform_measures.memory_mb(platform),
        }
        return figures


def _normal_again_s(after: Answers, steady: Answers) -> float:
    """Seconds into the last part until searches are no longer shed or slower than twice the steady p95.

    One in twenty may be: that is what a 95th percentile allows.
    """
    bound = 2 * float(np.percentile(steady.due_ms, 95))
    started = min(after.due_at_s)
    late = [
        due - started
        for due, taken, status in zip(after.due_at_s, after.due_ms, after.statuses, strict=True)
        if status in _SHED or taken > bound
    ]
    late.sort()
    kept = late[: max(0, len(late) - len(after.due_at_s) // 20)]
    return kept[-1] if kept else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--searches", type=float, default=20.0, help="a second")
    parser.add_argument("--enrolments", type=float, default=10.0, help="a second")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    figures = load_run(options.minutes, options.searches, options.enrolments)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "load.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
