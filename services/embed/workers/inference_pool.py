"""Workers that run the networks, and the queue before them."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from threading import Condition, Thread
from time import monotonic
from typing import Any

import structlog

from services.embed.gate.pool import DecodedLease
from services.embed.ports import Selection
from services.embed.settings import InferenceSettings
from services.embed.workers.channel import ChannelClosed, ChannelTimeout, channel_pair
from services.embed.workers.process import end_process, start_module
from services.shared.errors import ConfigurationError, LikenessError, Overloaded, PlatformError, error_from_code
from services.shared.telemetry import Metrics

_RESTART_PAUSE_S = 1.0
_MAX_TRIES = 2  # an image whose worker died may have been beside another one's fault: once more, then no

Answer = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Job:
    order: dict[str, Any]
    descriptor: int
    answer: Future[Answer] = field(default_factory=Future)
    tries: int = 0
    sent_at: float = 0.0
    is_abandoned: bool = False


class _Worker:
    """One process. `outstanding` belongs to the pool, under the pool's lock."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.outstanding: dict[int, _Job] = {}
        self.channel, theirs = channel_pair()
        self._process: subprocess.Popen[bytes] = start_module(
            "services.embed.workers.inference_worker", [str(theirs.fileno())], [theirs.fileno()], os.environ
        )
        theirs.close()
        self._order = dict(order)

    @property
    def process_id(self) -> int:
        return self._process.pid

    def wait_until_ready(self, timeout_s: float) -> Answer:
        """What the worker says about itself. Raises the LikenessError that keeps it from starting."""
        try:
            self.channel.send(self._order)
            answer, _ = self.channel.receive(timeout_s)
        except (ChannelClosed, ChannelTimeout) as error:
            status = self.stop()
            raise PlatformError(
                f"an inference worker does not start (exit status {status})",
                advice="See the service's standard error.",
            ) from error
        if "failed" in answer:
            self.stop()
            known = error_from_code(str(answer["failed"]), str(answer["detail"]), str(answer["advice"]))
            raise known or ConfigurationError(str(answer["detail"]), advice=str(answer["advice"]))
        return answer

    def stop(self) -> int:
        self._process.kill()
        self.channel.close()
        return end_process(self._process)


class InferencePool:
    """Runs jobs on the least busy worker. Every job ends: with an answer, or with an error when its worker died twice,
    its deadline passed or the pool was closed. Safe for many threads."""

    def __init__(self, settings: InferenceSettings, order: Mapping[str, Any], metrics: Metrics) -> None:
        """`order`: what a worker is told when it starts."""
        self._settings = settings
        self._order = order
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._changed = Condition()
        self._queue: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._ids = count()
        self._is_closed = False
        # On a CPU a worker gets one image at a time; where images are batched the next batch waits at the worker.
        self._capacity = 1 if settings.max_batch_images == 1 else 2 * settings.max_batch_images

    def start(self) -> Answer:
        """Start every worker; what the first one says about its runtime and provider. Raises LikenessError."""
        workers = [_Worker(self._order) for _ in range(self._settings.workers)]
        try:
            answers = [worker.wait_until_ready(self._settings.start_timeout_s) for worker in workers]
        except LikenessError:
            for worker in workers:
                worker.stop()
            raise
        with self._changed:
            for worker in workers:
                self._admit(worker)
        return answers[0]

    @property
    def process_ids(self) -> list[int]:
        with self._changed:
            return [worker.process_id for worker in self._workers]

    @property
    def waiting(self) -> int:
        """Jobs that no worker has yet."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Jobs that a worker has."""
        with self._changed:
            return sum(len(worker.outstanding) for worker in self._workers)

    def analyse(
        self,
        lease: DecodedLease,
        selection: Selection,
        face_index: int,
        deadline_s: float,
        *,
        is_thorough: bool = True,
    ) -> Answer:
        """Faces of a decoded image. `deadline_s` is on the monotonic clock. Raises Overloaded, PlatformError."""
        order = {**self._order_for(lease, selection, face_index), "is_thorough": is_thorough}
        job = _Job(order, lease.arena.descriptor)
        with self._changed:
            if self._is_closed:
                raise _stopping()
            self._queue.append(job)
            self._dispatch()
        try:
            return job.answer.result(max(0.0, deadline_s - monotonic()))
        except FutureTimeout as error:
            with self._changed:
                job.is_abandoned = True
            raise Overloaded("The image was not analysed in time.", advice="Try again in a few seconds.") from error

    def close(self) -> None:
        """End every worker and every job."""
        with self._changed:
            self._is_closed = True
            workers, self._workers = self._workers, []
            jobs = [*self._queue, *(job for worker in workers for job in worker.outstanding.values())]
            self._queue.clear()
            self._changed.notify_all()
        for worker in workers:
            worker.stop()
        for job in jobs:
            _fail(job, _stopping())

    def _order_for(self, lease: DecodedLease, selection: Selection, face_index: int) -> dict[str, Any]:
        return {
            "id": next(self._ids),
            "arena": lease.arena.key,
            "input_bytes": lease.arena.input_bytes,
            "pixel_bytes": lease.arena.pixel_bytes,
            "width": lease.image.stored_width,
            "height": lease.image.stored_height,
            "orientation": lease.image.orientation,
            "selection": selection.value,
            "face_index": face_index,
        }

    def _admit(self, worker: _Worker) -> None:
        """Under the lock: the worker takes jobs from now on."""
        self._workers.append(worker)
        Thread(target=self._read_answers, args=(worker,), name="inference-answers", daemon=True).start()
        self._dispatch()

    def _dispatch(self) -> None:
        """Under the lock: hand waiting jobs to workers that have room."""
        while self._queue and self._workers:
            worker = min(self._workers, key=lambda item: len(item.outstanding))
            if len(worker.outstanding) >= self._capacity:
                return
            job = self._queue.popleft()
            if job.is_abandoned:
                continue
            job.sent_at = monotonic()
            worker.outstanding[int(job.order["id"])] = job
            try:
                worker.channel.send(job.order, [job.descriptor])
            except ChannelClosed:
                # Its reader notices too, and fails the job over.
                self._workers.remove(worker)

    def _read_answers(self, worker: _Worker) -> None:
        while True:
            try:
                answer, _ = worker.channel.receive(self._settings.job_timeout_s)
            except ChannelTimeout:
                if self._is_stuck(worker):
                    break
            except ChannelClosed:
                break
            else:
                self._complete(worker, answer)
        self._bury(worker)

    def _is_stuck(self, worker: _Worker) -> bool:
        with self._changed:
            oldest = min((job.sent_at for job in worker.outstanding.values()), default=None)
        return oldest is not None and monotonic() - oldest >= self._settings.job_timeout_s

    def _complete(self, worker: _Worker, answer: Answer) -> None:
        with self._changed:
            job = worker.outstanding.pop(int(answer["id"]), None)
            self._dispatch()
        if job is not None:
            with suppress(InvalidStateError):  # the pool has been closed meanwhile
                job.answer.set_result(answer)

    def _bury(self, worker: _Worker) -> None:
        """The worker is gone: its jobs fail over once, and another worker takes its place."""
        status = worker.stop()
        with self._changed:
            if self._is_closed:
                return
            if worker in self._workers:
                self._workers.remove(worker)
            jobs, worker.outstanding = list(worker.outstanding.values()), {}
            hopeless = self._fail_over(jobs)
            self._dispatch()
        self._log.warning("inference_worker_died", status=status, jobs=len(jobs))
        self._metrics.embed_worker_restarts_total.labels("inference").inc()
        for job in hopeless:
            _fail(job, PlatformError("The image ended two inference workers.", advice="Tell the operators."))
        self._start_one()

    def _fail_over(self, jobs: list[_Job]) -> list[_Job]:
        """Under the lock: put jobs back in front; those that had their tries are returned."""
        for job in jobs:
            job.tries += 1
        self._queue.extendleft(job for job in reversed(jobs) if job.tries < _MAX_TRIES)
        return [job for job in jobs if job.tries >= _MAX_TRIES]

    def _start_one(self) -> None:
        while self._is_wanted():
            try:
                worker = _Worker(self._order)
                worker.wait_until_ready(self._settings.start_timeout_s)
            except (LikenessError, OSError) as error:
                self._log.error("inference_worker_does_not_start", reason=str(error))
                with self._changed:
                    self._changed.wait(_RESTART_PAUSE_S)
                continue
            with self._changed:
                if self._is_wanted():
                    self._admit(worker)
                    return
            worker.stop()

    def _is_wanted(self) -> bool:
        return not self._is_closed


def _fail(job: _Job, error: LikenessError) -> None:
    with suppress(InvalidStateError):  # it has been answered meanwhile
        job.answer.set_exception(error)


def _stopping() -> Overloaded:
    return Overloaded("The service is stopping.", advice="Try again in a few seconds.")
