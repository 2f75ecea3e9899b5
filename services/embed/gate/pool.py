"""The image gate: untrusted bytes in, pixels in shared memory out, whatever the bytes do to their decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import structlog

from services.embed.gate.formats import ALLOWED, recognise_format
from services.embed.gate.lines import Desk, Lines, Slot, Ticket, stopping
from services.embed.gate.process import WorkerDied, started_worker
from services.embed.ports import DecodedImage
from services.embed.settings import GateSettings
from services.embed.workers.arena import Arena
from services.shared.errors import ImageRefused, PlatformError
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


class GatePool:
    """Workers that decode, refilled when they die and relieved after so many images. Safe for many threads."""

    def __init__(self, settings: GateSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._lines = Lines()
        self._closed = Event()

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
        for worker in workers:
            self._lines.add(worker)

    @property
    def is_confined(self) -> bool:
        """Whether the kernel filters the system calls of every worker."""
        return all(desk.worker.is_confined for desk in self._lines.desks)

    @property
    def process_ids(self) -> list[int]:
        """Of the workers that are ready or busy."""
        return [desk.worker.process_id for desk in self._lines.desks]

    @property
    def busy(self) -> int:
        """Workers that have a picture."""
        return self._lines.busy

    @property
    def waiting(self) -> tuple[int, int]:
        """How many pictures have no place, and how many wait behind another at a worker."""
        return self._lines.waiting

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
            # The most that an honest decoder has written to either part of the arena.
            if touched > _KEPT_BYTES:
                slot.arena.forget(_KEPT_BYTES)
            self._lines.give_back(slot)

    def close(self) -> None:
        """End every worker; whoever waits or decodes gets Overloaded."""
        self._closed.set()
        for desk in self._lines.close():
            self._end(desk)

    def _decode(self, data: bytes, deadline_s: float) -> tuple[Slot, dict[str, Any]]:
        """A worker that was killed says nothing sure about the image, so there is one more try on another. One that
        dies of the image before says nothing about this one at all."""
        ticket = self._lines.ticket()
        tries = 0
        try:
            while True:
                slot = self._first_in_line(ticket, data, deadline_s)
                tries += 1
                try:
                    answer = slot.desk.worker.answer()
                except WorkerDied as error:
                    self._replace(slot.desk)
                    self._lines.lost(ticket)
                    self._judge(error, is_last=tries == 2)
                else:
                    self._answered(ticket, slot)
                    return slot, answer
        except BaseException:
            self._withdraw(ticket)
            raise

    def _first_in_line(self, ticket: Ticket, data: bytes, deadline_s: float) -> Slot:
        while True:
            slot = self._lines.place(ticket, deadline_s)
            slot.arena.write_input(data)
            if self._lines.is_first(ticket, slot, len(data), deadline_s):
                return slot

    def _judge(self, error: WorkerDied, *, is_last: bool) -> None:
        if self._closed.is_set():
            raise stopping() from error
        self._log.warning("gate_worker_died", status=error.status)
        self._metrics.embed_worker_restarts_total.labels("gate").inc()
        if error.was_too_slow:
            raise refusal("image_decode_too_slow", "The picture takes too long to decode.") from error
        if is_last:
            raise refusal("image_decoder_crashed", "The picture ends the process that decodes it.") from error

    def _answered(self, ticket: Ticket, slot: Slot) -> None:
        """The worker can decode the next image, while the arena of this one is still held."""
        images, has_left = self._lines.answered(ticket, slot)
        if has_left:
            self._end(slot.desk)
        elif images == self._settings.recycle_after_images:
            Thread(target=self._start_one, args=(slot.desk,), name="gate-relief", daemon=True).start()

    def _withdraw(self, ticket: Ticket) -> None:
        desk = self._lines.withdraw(ticket)
        if desk is not None:
            self._replace(desk)
            self._lines.lost(ticket)

    def _replace(self, desk: Desk) -> None:
        """End a worker and start another in the background. Arenas that are held are closed when given back."""
        is_missed = self._lines.remove(desk)
        self._end(desk)
        if is_missed and not self._closed.is_set():
            Thread(target=self._start_one, name="gate-refill", daemon=True).start()

    def _end(self, desk: Desk) -> None:
        unused = self._lines.unused(desk)
        desk.worker.stop()
        for index in unused:
            desk.worker.arenas[index].destroy()

    def _start_one(self, worn: Desk | None = None) -> None:
        """For a worker that is gone, or to relieve one that is worn and works on until this one is ready."""
        while not self._closed.is_set():
            try:
                worker = started_worker(self._settings)
            except (WorkerDied, OSError) as error:
                self._log.error("gate_worker_does_not_start", reason=str(error))
                self._closed.wait(_RESTART_PAUSE_S)
                continue
            surplus = self._lines.add(worker, worn)
            if surplus is not None:
                self._end(surplus)
            return


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
