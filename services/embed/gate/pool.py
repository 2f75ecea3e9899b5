"""The image gate: untrusted bytes in, pixels in shared memory out, whatever the bytes do to their decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Thread
from time import monotonic
from typing import Any

import structlog

from services.embed.gate.formats import ALLOWED, recognise_format
from services.embed.gate.process import GateWorker, WorkerDied, started_worker
from services.embed.ports import DecodedImage
from services.embed.settings import GateSettings
from services.embed.workers.arena import Arena
from services.shared.errors import ImageRefused, Overloaded, PlatformError
from services.shared.telemetry import Metrics

# Pages of an arena that stay when an image is done: enough for 12 megapixels without asking the kernel again.
_KEPT_BYTES = 40 * 1024 * 1024
_RESTART_PAUSE_S = 1.0

_ADVICE = {
    "image_empty": "Send the file itself.",
    "image_format_not_allowed": "Send a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC still.",
    "image_undecodable": "Send the file as the camera or system wrote it; it may have been cut short on its way.",
    "image_too_many_pixels": "Send a picture of at most 50 megapixels.",
    "image_too_large": "Send at most 32 MiB.",
    "image_decode_too_slow": "Save the picture again with an ordinary encoder.",
    "image_decode_too_much_memory": "Save the picture again with an ordinary encoder, or make it smaller.",
    "image_decoder_crashed": "Save the picture again with an ordinary encoder; tell the operators.",
}
_DETAIL = {
    "image_undecodable": "The picture cannot be decoded",
    "image_too_many_pixels": "The picture is over the pixel limit",
    "image_decode_too_much_memory": "The picture needs too much memory to decode",
}


def refusal(code: str, detail: str) -> ImageRefused:
    """The gate's no, with what to do about it."""
    return ImageRefused(detail, code=code, advice=_ADVICE[code])


@dataclass(frozen=True, slots=True)
class DecodedLease:
    """A decoded image and the arena that holds its pixels until the lease ends."""

    image: DecodedImage
    arena: Arena
    gate_ms: float


@dataclass(frozen=True, slots=True)
class _Slot:
    worker: GateWorker
    index: int

    @property
    def arena(self) -> Arena:
        return self.worker.arenas[self.index]


class GatePool:
    """Workers that decode, refilled when they die and relieved after so many images. Safe for many threads."""

    def __init__(self, settings: GateSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._changed = Condition()
        self._workers: list[GateWorker] = []
        self._is_closed = False

    def start(self) -> None:
        """Start every worker and wait until they are ready. Raises PlatformError."""
        try:
            with ThreadPoolExecutor(self._settings.workers) as threads:
                workers = list(threads.map(lambda _: started_worker(self._settings), range(self._settings.workers)))
        except (WorkerDied, OSError) as error:
            raise PlatformError(
                f"a gate worker does not start ({error})", advice="See the service's standard error."
            ) from error
        if not all(worker.is_confined for worker in workers):
            self._log.warning("gate_without_system_call_filter", advice="Limits of resources hold; use a Linux kernel.")
        with self._changed:
            self._workers = workers

    @property
    def is_confined(self) -> bool:
        """Whether the kernel filters the system calls of every worker."""
        with self._changed:
            return all(worker.is_confined for worker in self._workers)

    @property
    def process_ids(self) -> list[int]:
        """Of the workers that are ready or busy."""
        with self._changed:
            return [worker.process_id for worker in self._workers]

    @contextmanager
    def decoded(self, data: bytes, deadline_s: float) -> Iterator[DecodedLease]:
        """Decode, and hold the pixels while the block runs. `deadline_s` is on the monotonic clock.

        Raises ImageRefused, Overloaded (no worker in time).
        """
        _check_before_decoding(data, self._settings.max_bytes)
        slot, answer = self._decode(data, deadline_s)
        touched = self._settings.max_pixels * 3  # by whatever is refused
        try:
            image, gate_ms = checked_answer(answer, self._settings.max_pixels)
            touched = max(image.stored_width * image.stored_height * 3, len(data))
            yield DecodedLease(image, slot.arena, gate_ms)
        finally:
            self._give_back(slot, touched)

    def close(self) -> None:
        """End every worker; whoever waits or decodes gets Overloaded."""
        with self._changed:
            self._is_closed = True
            workers, self._workers = self._workers, []
            self._changed.notify_all()
        for worker in workers:
            self._end(worker)

    def _decode(self, data: bytes, deadline_s: float) -> tuple[_Slot, dict[str, Any]]:
        """A worker that was killed says nothing sure about the image, so there is one more try on another."""
        tries = 0
        while True:
            tries += 1
            slot = self._acquire(deadline_s)
            try:
                answer = slot.worker.decode(slot.index, data)
            except WorkerDied as error:
                self._replace(slot.worker)
                self._give_back(slot)
                self._judge(error, is_last=tries == 2)
            except BaseException:
                self._replace(slot.worker)
                self._give_back(slot)
                raise
            else:
                self._release_worker(slot.worker)
                return slot, answer

    def _judge(self, error: WorkerDied, *, is_last: bool) -> None:
        if self._is_closed:
            raise _stopping() from error
        self._log.warning("gate_worker_died", status=error.status)
        self._metrics.embed_worker_restarts_total.labels("gate").inc()
        if error.was_too_slow:
            raise refusal("image_decode_too_slow", "The picture takes too long to decode.") from error
        if is_last:
            raise refusal("image_decoder_crashed", "The picture ends the process that decodes it.") from error

    def _acquire(self, deadline_s: float) -> _Slot:
        with self._changed:
            while True:
                if self._is_closed:
                    raise _stopping()
                for worker in self._workers:
                    if worker.free and not worker.is_busy:
                        worker.is_busy = True
                        return _Slot(worker, worker.free.pop())
                remaining = deadline_s - monotonic()
                if remaining <= 0 or not self._changed.wait(remaining):
                    raise Overloaded("No decoder was free in time.", advice="Try again in a few seconds.")

    def _release_worker(self, worker: GateWorker) -> None:
        """The worker can decode the next image, while the arena of this one is still held."""
        with self._changed:
            worker.images += 1
            worker.is_busy = False
            is_relieved = worker not in self._workers
            is_worn = not is_relieved and worker.images == self._settings.recycle_after_images
            self._changed.notify()
        if is_relieved:
            self._end(worker)
        elif is_worn:
            Thread(target=self._start_one, args=(worker,), name="gate-relief", daemon=True).start()

    def _give_back(self, slot: _Slot, touched_bytes: int = 0) -> None:
        """`touched_bytes`: the most that an honest decoder has written to either part of the arena."""
        if touched_bytes > _KEPT_BYTES:
            slot.arena.forget(_KEPT_BYTES)
        with self._changed:
            if slot.worker in self._workers:
                slot.worker.free.append(slot.index)
                self._changed.notify()
            else:
                slot.arena.destroy()

    def _replace(self, worker: GateWorker) -> None:
        """End a worker and start another in the background. Arenas that are held are closed when given back."""
        with self._changed:
            is_missed = worker in self._workers
            if is_missed:
                self._workers.remove(worker)
        self._end(worker)
        if is_missed and self._still_wanted():
            Thread(target=self._start_one, name="gate-refill", daemon=True).start()

    def _end(self, worker: GateWorker) -> None:
        with self._changed:
            unused, worker.free = worker.free, []
        worker.stop()
        for index in unused:
            worker.arenas[index].destroy()

    def _start_one(self, worn: GateWorker | None = None) -> None:
        """For a worker that is gone, or to relieve one that is worn and works on until this one is ready."""
        while self._still_wanted():
            try:
                worker = started_worker(self._settings)
            except (WorkerDied, OSError) as error:
                self._log.error("gate_worker_does_not_start", reason=str(error))
                with self._changed:
                    self._changed.wait(_RESTART_PAUSE_S)
                continue
            surplus = self._take_on(worker, worn)
            if surplus is not None:
                self._end(surplus)
            return

    def _take_on(self, worker: GateWorker, worn: GateWorker | None) -> GateWorker | None:
        """Whom to end now: the worn one, unless it is busy and ended when it is done; the new one where nobody misses
        it, because the worn one has died and was replaced."""
        with self._changed:
            if self._is_closed or (worn is not None and worn not in self._workers):
                return worker
            self._workers.append(worker)
            self._changed.notify()
            if worn is None:
                return None
            self._workers.remove(worn)
            return None if worn.is_busy else worn

    def _still_wanted(self) -> bool:
        return not self._is_closed


def _stopping() -> Overloaded:
    return Overloaded("The service is stopping.", advice="Try again in a few seconds.")


def _check_before_decoding(data: bytes, max_bytes: int) -> None:
    if not data:
        raise refusal("image_empty", "The file is empty.")
    if len(data) > max_bytes:
        raise refusal("image_too_large", f"The file has {len(data)} bytes, the limit is {max_bytes}.")
    if recognise_format(data[:64]) is None:
        raise refusal("image_format_not_allowed", "The file is not a still image of an allowed format.")


def checked_answer(answer: Mapping[str, Any], max_pixels: int) -> tuple[DecodedImage, float]:
    """What the worker says, believed only as far as it keeps within the arena and the lists: the image and the time
    in milliseconds. Raises ImageRefused.
    """
    code = answer.get("refused")
    if code in _DETAIL:
        text = str(answer.get("text", ""))
        raise refusal(code, f"{_DETAIL[code]}: {text}." if text else f"{_DETAIL[code]}.")
    numbers = [answer.get(name) for name in ("width", "height", "orientation", "frames")]
    milliseconds = answer.get("ms")
    if all(type(number) is int for number in numbers) and isinstance(milliseconds, float):
        width, height, orientation, frames = (int(number) for number in numbers if number is not None)
        is_possible = min(width, height, frames) >= 1 and width * height <= max_pixels and 1 <= orientation <= 8
        if is_possible and answer.get("format") in ALLOWED and code is None:
            image = DecodedImage(str(answer["format"]), width, height, orientation, min(frames, 2**31))
            return image, milliseconds
    raise refusal("image_decoder_crashed", "The decoder gave an answer that makes no sense.")
