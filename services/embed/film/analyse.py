"""The use case: an untrusted film in, faces of its frames out, segment by segment."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore
from time import monotonic
from typing import IO, Any

import structlog

from services.embed.film.events import description_event, frame_message, segment_event, still_event
from services.embed.film.formats import HEAD_BYTES, recognise_container
from services.embed.film.process import Description, FilmWorker, FilmWorkerDied, ReadFrame, read_only, refusal
from services.embed.film.settings import FilmSettings
from services.embed.gate.pool import DecodedLease
from services.embed.ports import Selection
from services.embed.workers.arena import Arena
from services.embed.workers.inference_pool import InferencePool
from services.rpc.v1 import films_pb2
from services.shared.biometric import ModelProvenance
from services.shared.errors import FilmRefused, IntegrityError, Overloaded
from services.shared.telemetry import Metrics

_FRAME_TIMEOUT_S = 60.0  # of detection and templates, with the searches that go before
_TRIES = 3
_SHORT_AT_ONCE = 4  # films that are only opened
# A segment's message holds at most so many faces: those of best quality. A football crowd has no face to search anyway.
_MAX_SEGMENT_FACES = 8_000

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spooled:
    """A film in an unnamed file of this process."""

    file: IO[bytes]
    size: int


class AnalyseFilm:
    """Reads films in worker processes of their own, and shows their frames to the networks that stills are shown to."""

    def __init__(
        self, settings: FilmSettings, inference: InferencePool, model: ModelProvenance, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._inference = inference
        self._model = model
        self._metrics = metrics
        self._places = BoundedSemaphore(settings.max_running)
        self._short_places = BoundedSemaphore(_SHORT_AT_ONCE)
        if settings.spool_path is not None:
            settings.spool_path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def admitted(self, *, is_short: bool = False) -> Iterator[None]:
        """A place for one film; opening one to see what it is takes one of its own. Raises Overloaded at once when
        there is none."""
        places = self._short_places if is_short else self._places
        if not places.acquire(blocking=False):
            raise Overloaded("Enough films are being read.", advice="Try again when one is done.")
        try:
            yield
        finally:
            places.release()

    @contextmanager
    def spooled(self, content: Iterable[bytes], sha256: str, size: int) -> Iterator[Spooled]:
        """Hold the film while the block runs. Raises FilmRefused, IntegrityError (not what was announced)."""
        if size > self._settings.max_bytes:
            raise refusal("film_too_large", f"{size} bytes, the limit is {self._settings.max_bytes}")
        with tempfile.TemporaryFile(dir=self._settings.spool_path) as file:
            digest, received = hashlib.sha256(), 0
            for chunk in content:
                received += len(chunk)
                if received > size:
                    break
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            if received != size or digest.hexdigest() != sha256:
                raise IntegrityError("The film came otherwise than announced.", advice="Send it again.")
            _check_head(os.pread(file.fileno(), HEAD_BYTES, 0))
            yield Spooled(file, size)

    def describe(self, film: Spooled) -> Iterator[films_pb2.FilmEvent]:
        """Raises FilmRefused."""
        with self._reading(film) as reading:
            yield description_event(reading.description, self._model)

    def faces(self, film: Spooled, first_segment: int, is_wanted: Callable[[], bool]) -> Iterator[films_pb2.FilmEvent]:
        """The description, then each segment from the first one wanted. A segment that ends its worker is given as far
        as it was read, with the reason. Raises FilmRefused, Overloaded, PlatformError."""
        with self._reading(film) as reading:
            yield description_event(reading.description, self._model)
            for number in range(first_segment, len(reading.description.segments)):
                if not is_wanted():
                    return
                yield reading.segment(number, is_wanted)

    def stills(
        self, film: Spooled, wishes: Sequence[films_pb2.StillWish], is_wanted: Callable[[], bool]
    ) -> Iterator[films_pb2.FilmEvent]:
        """The description, then the frames wished for. Raises FilmRefused, Overloaded, PlatformError."""
        with self._reading(film) as reading:
            yield description_event(reading.description, self._model)
            yield from reading.stills(wishes, is_wanted)

    @contextmanager
    def _reading(self, film: Spooled) -> Iterator[_Reading]:
        reading = _Reading(self._settings, self._inference, self._metrics, film, self._model.model_id)
        try:
            reading.open()
            yield reading
        finally:
            reading.close()


class _Reading:
    """One film, its worker and the frames under way."""

    def __init__(
        self, settings: FilmSettings, inference: InferencePool, metrics: Metrics, film: Spooled, model_id: str
    ) -> None:
        self._model_id = model_id
        self._settings = settings
        self._inference = inference
        self._metrics = metrics
        self._film = film
        self._descriptor = read_only(film.file.fileno())
        self._threads = ThreadPoolExecutor(settings.parallel, thread_name_prefix="film")
        self._worker = FilmWorker(settings, self._descriptor, film.size)
        self.description: Description

    def open(self) -> None:
        """Have the worker find out what the film is. Raises FilmRefused, also when the film ends its worker: a worker
        that was killed says nothing sure about the film, so there is one more try."""
        try:
            self.description = self._worker.open()
        except FilmWorkerDied as error:
            if error.is_sure:
                raise self._died(error) from error
            self._replace(-1, error)
            try:
                self.description = self._worker.open()
            except FilmWorkerDied as again:
                raise self._died(again) from again

    def close(self) -> None:
        self._threads.shutdown(wait=True)  # frames under way lie in the worker's arenas
        self._worker.stop()
        os.close(self._descriptor)

    def segment(self, number: int, is_wanted: Callable[[], bool]) -> films_pb2.FilmEvent:
        """First look, then what lies around the faces. What ends the worker twice is given as far as it was read."""
        seen, died = self._segment(number, is_wanted)
        if died is not None and not died.is_sure:
            seen, died = self._segment(number, is_wanted)
        bounds = self.description.segments[number]
        damaged, self._worker.is_damaged = self._worker.is_damaged, False
        problem = ("frames_damaged" if damaged else "") if died is None else died.code
        return segment_event(number, bounds, seen, self._model_id, problem, max_faces=_MAX_SEGMENT_FACES)

    def _segment(
        self, number: int, is_wanted: Callable[[], bool]
    ) -> tuple[list[tuple[ReadFrame, Answer]], FilmWorkerDied | None]:
        worker = self._worker
        seen: list[tuple[ReadFrame, Answer]] = []
        try:
            worker.look(number)
            self._show_all(worker, seen, is_wanted)
            looked = sorted(frame.pts for frame, _ in seen)
            with_face = sorted(frame.pts for frame, answer in seen if answer["faces"])
            if with_face and is_wanted():
                worker.follow(number, looked, with_face)
                self._show_all(worker, seen, is_wanted)
        except FilmWorkerDied as error:
            self._replace(number, error)
            self.open()
            return seen, error
        return seen, None

    def stills(
        self, wishes: Sequence[films_pb2.StillWish], is_wanted: Callable[[], bool]
    ) -> Iterator[films_pb2.FilmEvent]:
        worker = self._worker
        with_picture = {wish.pts for wish in wishes if wish.with_picture}
        free = list(range(len(worker.arenas)))
        under_way: deque[tuple[Future[films_pb2.FilmEvent], int]] = deque()
        try:
            worker.stills(sorted({wish.pts for wish in wishes}))
            while is_wanted():
                frame = worker.next(free[-1]) if free else None
                if frame is not None:
                    arena = free.pop()
                    is_whole = frame.pts in with_picture
                    under_way.append((self._threads.submit(self._still, frame, worker.arenas[arena], is_whole), arena))
                elif under_way:
                    event, arena = under_way.popleft()
                    yield event.result()
                    free.append(arena)
                else:
                    return
        except FilmWorkerDied as error:
            # The stills that are missing are left out; every track has others.
            yield from [event.result() for event, _ in under_way]
            self._replace(-1, error)

    def _still(self, frame: ReadFrame, arena: Arena, with_picture: bool) -> films_pb2.FilmEvent:
        message = frame_message(frame, self._show(frame, arena, is_thorough=True), self._model_id)
        return still_event(frame, message, arena, with_picture=with_picture)

    def _show_all(
        self, worker: FilmWorker, seen: list[tuple[ReadFrame, Answer]], is_wanted: Callable[[], bool]
    ) -> None:
        """Decode what is planned, one frame ahead of the networks. Frames that were decoded are seen in any case."""
        free = list(range(len(worker.arenas)))
        under_way: dict[Future[Answer], tuple[int, ReadFrame]] = {}
        try:
            while is_wanted():
                if not free:
                    _collect(under_way, free, seen)
                arena = free.pop()
                frame = worker.next(arena)
                if frame is None:
                    break
                under_way[self._threads.submit(self._show, frame, worker.arenas[arena])] = (arena, frame)
        finally:
            while under_way:
                _collect(under_way, free, seen)

    def _show(self, frame: ReadFrame, arena: Arena, *, is_thorough: bool = False) -> Answer:
        """Faces and templates by the very path of a still; what is cut out as thoroughly as one."""
        lease = DecodedLease(frame.image, arena, 0.0)
        for attempt in range(1, _TRIES + 1):
            try:
                deadline_s = monotonic() + _FRAME_TIMEOUT_S
                return self._inference.analyse(lease, Selection.ALL, 0, deadline_s, is_thorough=is_thorough)
            except Overloaded:
                structlog.get_logger().info("film_frame_waits", attempt=attempt)
        raise Overloaded("The frame was not analysed in time.", advice="Try again when the platform is less busy.")

    def _replace(self, segment: int, error: FilmWorkerDied) -> None:
        structlog.get_logger().warning("film_worker_died", segment=segment, reason=error.code)
        self._metrics.embed_worker_restarts_total.labels("film").inc()
        self._worker.stop()
        self._worker = FilmWorker(self._settings, self._descriptor, self._film.size)

    def _died(self, error: FilmWorkerDied) -> FilmRefused:
        self._metrics.embed_worker_restarts_total.labels("film").inc()
        return refusal(error.code)


def _collect(
    under_way: dict[Future[Answer], tuple[int, ReadFrame]],
    free: list[int],
    seen: list[tuple[ReadFrame, Answer]],
) -> None:
    """Take what has been answered, at least one."""
    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
    for future in done:
        arena, frame = under_way.pop(future)
        free.append(arena)
        seen.append((frame, future.result()))


def _check_head(head: bytes) -> None:
    if not head:
        raise refusal("film_empty")
    if recognise_container(head) is None:
        raise refusal("film_format_not_allowed")
