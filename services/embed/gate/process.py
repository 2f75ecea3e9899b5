"""One gate worker, seen from the service."""

from __future__ import annotations

import signal
import socket
from dataclasses import asdict
from typing import Any

from services.embed.gate.limits import ORDER, GateLimits
from services.embed.settings import GateSettings
from services.embed.workers.arena import Arena
from services.embed.workers.channel import ChannelClosed, ChannelTimeout, channel_pair
from services.embed.workers.process import end_process, start_module

_START_TIMEOUT_S = 90.0  # a second where nothing else runs
_MAX_ANSWER_BYTES = 4096  # numbers and a few words; whoever is behind the channel may be hostile
_TOO_SLOW = frozenset({-signal.SIGPROF, -signal.SIGXCPU})


class WorkerDied(Exception):
    """The process is gone. `was_too_slow`: it used up its time."""

    def __init__(self, status: int, *, was_too_slow: bool = False) -> None:
        super().__init__(f"exit status {status}")
        self.status = status
        self.was_too_slow = was_too_slow or status in _TOO_SLOW


class GateWorker:
    """A process and its arenas. Orders wait in a queue of the kernel until the process takes them, one at a time, and
    answers come in the order of the orders. Not safe for several threads that order, nor for several that ask.

    `is_confined`: the kernel filters its system calls.
    """

    def __init__(self, settings: GateSettings) -> None:
        pixel_bytes = settings.max_pixels * 3
        self.arenas = [
            Arena.create(settings.max_bytes, pixel_bytes) for _ in range(settings.arenas // settings.workers)
        ]
        self.is_confined = False
        self._wall_s = settings.wall_s
        self._channel, theirs = channel_pair(max_message_bytes=_MAX_ANSWER_BYTES)
        # Its end of this one stays open here too: what it has not taken can be taken back.
        self._orders, self._its_orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors = [theirs.fileno(), self._its_orders.fileno(), *(arena.descriptor for arena in self.arenas)]
        arguments = [*descriptors[:2], settings.max_bytes, pixel_bytes, *descriptors[2:]]
        self._process = start_module("services.embed.gate.worker", [str(value) for value in arguments], descriptors, {})
        theirs.close()
        # Pages of the arenas count as the worker's memory too.
        private_bytes = settings.memory_bytes - settings.max_bytes - pixel_bytes
        self._limits = GateLimits(settings.max_pixels, settings.cpu_s, private_bytes)

    @property
    def process_id(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Raises WorkerDied."""
        try:
            self._channel.send({"limits": asdict(self._limits)})
            answer, _ = self._channel.receive(_START_TIMEOUT_S)
        except (ChannelClosed, ChannelTimeout) as error:
            raise WorkerDied(end_process(self._process)) from error
        self.is_confined = answer.get("is_confined") is True

    def order(self, arena: int, size: int) -> None:
        """Have what was written to this arena decoded, after what was ordered before. Does not wait; whether the
        process lives, the answer tells."""
        self._orders.send(ORDER.pack(arena, size), socket.MSG_DONTWAIT)

    def recall(self, arena: int) -> bool:
        """Take the last order back. False where the process has it, or has not taken the one before yet."""
        try:
            first = self._its_orders.recv(ORDER.size, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            if ORDER.unpack(first)[0] != arena:
                return False
            # The process may have been quicker; then nothing is left, since nothing was behind it.
            return bool(self._its_orders.recv(ORDER.size, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def answer(self) -> dict[str, Any]:
        """The worker's own words about the first picture that it was not asked about yet; not to be trusted. The clock
        runs from now. Raises WorkerDied."""
        try:
            answer, _ = self._channel.receive(self._wall_s)
        except ChannelTimeout as error:
            self._process.kill()
            raise WorkerDied(end_process(self._process, patience_s=1.0), was_too_slow=True) from error
        except ChannelClosed as error:
            raise WorkerDied(end_process(self._process, patience_s=1.0)) from error
        return answer

    def stop(self) -> None:
        """End the process; an `answer` that another thread waits for raises WorkerDied."""
        self._process.kill()
        self._channel.close()
        end_process(self._process)
        self._orders.close()
        self._its_orders.close()


def started_worker(settings: GateSettings) -> GateWorker:
    """A worker that is ready. Raises WorkerDied, OSError."""
    worker = GateWorker(settings)
    try:
        worker.wait_until_ready()
    except WorkerDied:
        worker.stop()
        raise
    return worker
