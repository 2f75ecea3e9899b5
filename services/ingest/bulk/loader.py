"""A bulk load: read, submit in batches from several threads, and watch everything settle meanwhile."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from threading import Event, Lock
from typing import Protocol

from services.ingest.bulk.client import EnrolmentClient, Image, Outcome, Submitted
from services.ingest.bulk.journal import Journal
from services.ingest.bulk.manifest import BulkRow
from services.ingest.bulk.reading import Unreadable, key_of, read_image

_BATCH_IMAGES = 16
_BATCH_BYTES = 8 * 1024 * 1024
_LOOK_UP = 500
# Between looks, so that watching a long load costs little and its end is seen at once.
_LOOK_UP_REST_S = 1.0
_LAST_LOOK_UP_REST_S = 0.2
_LAST = 100
PENDING = "accepted"


class Progress(Protocol):
    """Is told how far it is, from several threads."""

    def submitted(self, count: int) -> None:
        """So many more images were accepted."""
        ...

    def not_submitted(self, count: int) -> None:
        """So many more were refused at once, or cannot be read."""
        ...

    def settled(self, count: int) -> None:
        """So many more have their final state."""
        ...


@dataclass
class Report:
    """What became of every row, by its line of the manifest."""

    submissions: dict[int, Submitted] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    # Why it ended before its time; empty when it did not.
    stopped_by: str = ""

    def state_of(self, row: BulkRow) -> tuple[str, str, str]:
        """State, reason and detail of a row: `not_submitted` where there is no enrolment."""
        submission = self.submissions.get(row.line)
        if submission is None:
            return "not_submitted", "stopped", self.stopped_by
        if not submission.enrolment_id:
            return "not_submitted", submission.problem, submission.detail
        outcome = self.outcomes.get(submission.enrolment_id, Outcome(PENDING, "", ""))
        return outcome.state, outcome.reason, outcome.detail

    def counts(self, rows: Iterable[BulkRow]) -> Counter[tuple[str, str]]:
        """Rows by state and reason."""
        return Counter(self.state_of(row)[:2] for row in rows)


class BulkLoader:
    """Loads rows once. `concurrency` batches are under way at a time."""

    def __init__(
        self,
        client: EnrolmentClient,
        journal: Journal,
        concurrency: int,
        stop: Event,
        progress: Progress,
        *,
        rate_per_s: float = 0.0,
    ) -> None:
        """`rate_per_s`: images sent in a second at most; 0 for no limit."""
        self._client = client
        self._journal = journal
        self._concurrency = concurrency
        self._stop = stop
        self._progress = progress
        self._pause_s = 1 / rate_per_s if rate_per_s else 0.0
        self._lock = Lock()
        # Submitted and not known to have settled, in the order of submission.
        self._pending: deque[str] = deque()
        self._is_submitted = Event()

    def load(self, rows: Sequence[BulkRow], report: Report, *, is_waiting: bool) -> None:
        """Submit what the journal does not know; when waiting, return once everything has its outcome.

        Raises what the client raises; the report keeps what was done until then.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="enrol-watch") as pool:
            try:
                watching = pool.submit(self._watch, report) if is_waiting else None
                self._submit(rows, report)
                self._is_submitted.set()
                if watching is not None:
                    watching.result()
            except BaseException:
                self._stop.set()  # the other threads give up their waiting
                raise

    def _submit(self, rows: Sequence[BulkRow], report: Report) -> None:
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="enrol") as pool:
            running: set[Future[list[Submitted]]] = set()
            try:
                for batch in self._batches(rows, report):
                    running.add(pool.submit(self._client.submit, batch))
                    if len(running) > self._concurrency:
                        running = self._collect(running, report)
                while running:
                    running = self._collect(running, report)
            except BaseException:
                self._stop.set()
                raise

    def _collect(self, running: set[Future[list[Submitted]]], report: Report) -> set[Future[list[Submitted]]]:
        done, rest = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            submissions = future.result()
            self._journal.note({s.key: s.enrolment_id for s in submissions if s.enrolment_id})
            self._note(submissions, report)
        return rest

    def _note(self, submissions: Sequence[Submitted], report: Report) -> None:
        report.submissions.update({submission.row.line: submission for submission in submissions})
        accepted = [submission.enrolment_id for submission in submissions if submission.enrolment_id]
        with self._lock:
            self._pending.extend(accepted)
        self._progress.submitted(len(accepted))
        self._progress.not_submitted(len(submissions) - len(accepted))

    def _watch(self, report: Report) -> None:
        """Look enrolments up, oldest first, until all are submitted and settled or stop is asked for."""
        while not self._stop.is_set():
            # Read first: what was submitted before it is in the queue.
            is_last = self._is_submitted.is_set()
            front = self._front()
            if not front and is_last:
                return
            settled = self._look_up(front, report)
            if not front or len(settled) < len(front) // 2:
                is_near_the_end = is_last and len(front) < _LAST
                self._stop.wait(_LAST_LOOK_UP_REST_S if is_near_the_end else _LOOK_UP_REST_S)

    def _front(self) -> list[str]:
        """They settle in the order of acceptance, more or less: the front tells how far it is."""
        with self._lock:
            return [self._pending.popleft() for _ in range(min(_LOOK_UP, len(self._pending)))]

    def _look_up(self, front: Sequence[str], report: Report) -> set[str]:
        if not front:
            return set()
        found = self._client.look_up(front)
        report.outcomes.update(found)
        settled = {each for each in front if each in found and found[each].state != PENDING}
        with self._lock:
            self._pending.extendleft(reversed([each for each in front if each not in settled]))
        self._progress.settled(len(settled))
        return settled

    def _batches(self, rows: Sequence[BulkRow], report: Report) -> Iterator[list[Image]]:
        """The images that are to be sent, in batches; what cannot be sent, or is there already, goes to the report."""
        images = self._images(rows, report)
        while batch := list(islice(_up_to_a_batch(images), _BATCH_IMAGES)):
            yield batch

    def _images(self, rows: Sequence[BulkRow], report: Report) -> Iterator[Image]:
        for row in rows:
            try:
                key = key_of(row)
                known = self._journal.enrolment_id(key)
                content = b"" if known else read_image(row)
            except Unreadable as error:
                self._note([Submitted(row, problem=error.problem, detail=error.detail)], report)
                continue
            if known:
                self._note([Submitted(row, enrolment_id=known, key=key)], report)
            else:
                yield Image(row, key, content)
                if self._pause_s and self._stop.wait(self._pause_s):
                    return


def _up_to_a_batch(images: Iterator[Image]) -> Iterator[Image]:
    """Images until they are a batch's bytes together."""
    size_bytes = 0
    for image in images:
        yield image
        size_bytes += len(image.content)
        if size_bytes >= _BATCH_BYTES:
            return
