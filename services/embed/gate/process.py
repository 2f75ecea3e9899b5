"""One gate worker, seen from the service."""

from __future__ import annotations

import signal
from dataclasses import asdict
from typing import Any

from services.embed.gate.limits import GateLimits
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
    """A process and its arenas. `free`, `is_busy`, `images` belong to the pool, under the pool's lock.

    `is_confined`: the kernel filters its system calls.
    """

    def __init__(self, settings: GateSettings) -> None:
        pixel_bytes = settings.max_pixels * 3
        self.arenas = [
            Arena.create(settings.max_bytes, pixel_bytes) for _ in range(settings.arenas // settings.workers)
        ]
        self.free = list(range(len(self.arenas)))
        self.is_busy = False
        self.images = 0
        self.is_confined = False
        self._wall_s = settings.wall_s
        self._channel, theirs = channel_pair(max_message_bytes=_MAX_ANSWER_BYTES)
        descriptors = [theirs.fileno(), *(arena.descriptor for arena in self.arenas)]
        arguments = [descriptors[0], settings.max_bytes, pixel_bytes, *descriptors[1:]]
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

    def decode(self, arena: int, data: bytes) -> dict[str, Any]:
        """The worker's own words about the image; not to be trusted. Raises WorkerDied."""
        self.arenas[arena].write_input(data)
        try:
            self._channel.send({"arena": arena, "size": len(data)})
            answer, _ = self._channel.receive(self._wall_s)
        except ChannelTimeout as error:
            self._process.kill()
            raise WorkerDied(end_process(self._process, patience_s=1.0), was_too_slow=True) from error
        except ChannelClosed as error:
            raise WorkerDied(end_process(self._process, patience_s=1.0)) from error
        return answer

    def stop(self) -> None:
        """End the process; a decode that runs in another thread raises WorkerDied."""
        self._process.kill()
        self._channel.close()
        end_process(self._process)


def started_worker(settings: GateSettings) -> GateWorker:
    """A worker that is ready. Raises WorkerDied, OSError."""
    worker = GateWorker(settings)
    try:
        worker.wait_until_ready()
    except WorkerDied:
        worker.stop()
        raise
    return worker
