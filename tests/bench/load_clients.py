"""The clients of a load run: one that sends everything, and one that only looks on.

Both share the machine's cores with what they measure, so they use the barest of the standard library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import count
from multiprocessing import Queue, get_context
from multiprocessing.synchronize import Event
from threading import Lock, local
from typing import Any
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np

from tests.bench import platform_measures
from tests.support.platform import Platform

_PEOPLE = 12  # so that the limit on one person is not what is measured
_THREADS = 160
SHED = frozenset({429, 503})
_ONLOOKERS_PAUSE_S = 0.1
_ONLOOKERS_FIRST = 90_000_000  # numbers that the other client does not come to
_NO_ANSWER = 0  # counted among the other statuses


@dataclass(slots=True)
class Answers:
    """What became of the requests of one kind in one part: time since due and since sent in ms, and status."""

    due_ms: list[float] = field(default_factory=list)
    sent_ms: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    due_at_s: list[float] = field(default_factory=list)

    def add(self, status: int, since_due_ms: float, since_sent_ms: float, due_at_s: float) -> None:
        self.statuses.append(status)
        self.due_ms.append(since_due_ms)
        self.sent_ms.append(since_sent_ms)
        self.due_at_s.append(due_at_s)

    def summary(self) -> dict[str, Any]:
        """Of the accepted, percentiles since they were due, and one since sent: in a burst this client is late as well.
        Of the shed, since they were sent."""
        status, due, sent = np.array(self.statuses), np.array(self.due_ms), np.array(self.sent_ms)
        is_shed, is_accepted = np.isin(status, list(SHED)), (status >= 200) & (status < 300)
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
        self._searches = Sender(_door(platform, "search", "operator", "/v1/searches"), _SEARCH)
        self._enrolments = Sender(_door(platform, "ingest", "custodian", "/v1/enrolments"), _ENROLMENT)
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
            answers.add(status, (ended_at_s - due_at_s) * 1000, (ended_at_s - sent_at_s) * 1000, due_at_s)


def _timetable(seconds: float, searches_per_s: float, enrolments_per_s: float) -> Iterator[tuple[float, str]]:
    kinds = (("searches", searches_per_s), ("enrolments", enrolments_per_s))
    due = [(number / rate, kind) for kind, rate in kinds for number in range(int(seconds * rate))]
    return iter(sorted(due))


@dataclass(frozen=True, slots=True)
class Door:
    """Where requests of one kind go, and as whom."""

    url: str
    tokens: Sequence[str]


def _door(platform: Platform, service: str, role: str, path: str) -> Door:
    tokens = [platform.token(role, person_id=f"load-{role}-{person}") for person in range(_PEOPLE)]
    return Door(platform.url(service) + path, tokens)


class Sender:
    """Sends one kind of request, made beforehand but for its number, on connections that are kept, one a thread: this
    client shares the cores with what it measures, and a comfortable library would take one of them for itself."""

    def __init__(self, door: Door, form: Mapping[str, str]) -> None:
        self._address = urlsplit(door.url)
        self._tokens = door.tokens
        made = [
            httpx.Request("POST", door.url, data=dict(form), files={"image": ("face.jpg", content)})
            for content in (_picture(number) + _NUMBER for number in range(64))
        ]
        self._requests = [(request.headers["content-type"], request.read()) for request in made]
        self._local = local()

    def send(self, number: int) -> int:
        """The status of the answer. No two requests have the same picture or reference: the stand-in's template hangs
        on a picture's bytes."""
        content_type, body = self._requests[number % len(self._requests)]
        headers = {"Content-Type": content_type, "Authorization": f"Bearer {self._tokens[number % len(self._tokens)]}"}
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
        connection.request("POST", self._address.path, body, dict(headers))
        answer = connection.getresponse()
        answer.read()
        return answer.status


class Onlooker:
    """Somebody else who searches while the burst is on: a process of its own that sends ten a second.

    Who sends hundreds a second waits for itself as well. How soon one is told that the house is full, this one sees.
    """

    def __init__(self, platform: Platform) -> None:
        context = get_context("spawn")
        self._begin, self._end = context.Event(), context.Event()
        self._seen: Queue[list[tuple[int, float]]] = context.Queue()
        door = _door(platform, "search", "operator", "/v1/searches")
        self._process = context.Process(target=_look_on, args=(door, self._begin, self._end, self._seen), daemon=True)
        self._process.start()

    def look_on(self, during: Callable[[], dict[str, Answers]]) -> tuple[dict[str, Answers], Answers]:
        """What `during` answers, and what was seen while it ran."""
        self._begin.set()
        answers = during()
        self._end.set()
        seen = Answers()
        for status, taken_ms in self._seen.get(timeout=120):
            seen.add(status, taken_ms, taken_ms, 0.0)
        self._process.join(60)
        return answers, seen


def _look_on(door: Door, begin: Event, end: Event, seen: Queue[list[tuple[int, float]]]) -> None:
    sender = Sender(door, _SEARCH)
    rows: list[tuple[int, float]] = []

    def once(number: int) -> None:
        sent_at_s = time.perf_counter()
        status = sender.send(number)
        rows.append((status, (time.perf_counter() - sent_at_s) * 1000))

    with ThreadPoolExecutor(32) as pool:
        begin.wait()
        for number in count(_ONLOOKERS_FIRST):
            if end.wait(_ONLOOKERS_PAUSE_S):
                break
            pool.submit(once, number)
    seen.put(rows)


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
