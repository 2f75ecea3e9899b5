"""Removed rows out of Milvus for good: its segments are written anew without them.

A removed row is out of every answer at once, but its bytes stay in its segment until Milvus compacts it, which it does
of its own accord only where a fifth of a segment is gone: a single erased person would stay for years. So after
withdrawals the collections are flushed and compacted by command. The old segments' files go when Milvus collects its
garbage (`dataCoord.gc.interval`, an hour), and the message log forgets by its own retention.
"""

from __future__ import annotations

from threading import Event
from typing import Any

import structlog

from services.search.adapters.milvus_calls import MilvusCalls
from services.search.settings import GallerySettings
from services.shared.clock import Clock
from services.shared.errors import LikenessError

# Flushing waits for what is being written.
_TIMEOUT_S = 60.0


class MilvusCompaction:
    """Compacts every collection of a gallery after withdrawals, `every_s` apart at least; once after the start too, for
    what was withdrawn before. Everything can be repeated: what fails is asked for again."""

    def __init__(self, settings: GallerySettings, clock: Clock, every_s: float) -> None:
        self._prefix = f"{settings.collection}_"
        self._calls = MilvusCalls(settings.uri, settings.token, settings.database, _TIMEOUT_S)
        self._clock = clock
        self._every_s = every_s
        self._due_s = clock.monotonic_s() + every_s
        self._asked = Event()
        self._asked.set()

    def ask(self) -> None:
        """Something was withdrawn."""
        self._asked.set()

    def step(self) -> None:
        """Raises DependencyUnavailable, GalleryIncomplete: then it is tried again at the next."""
        if not self._asked.is_set() or self._clock.monotonic_s() < self._due_s:
            return
        self._due_s = self._clock.monotonic_s() + self._every_s
        self._asked.clear()
        try:
            jobs = self.compact()
        except LikenessError:
            self._asked.set()
            raise
        structlog.get_logger().info("gallery_compaction_asked", jobs=jobs)

    def compact(self) -> dict[str, int]:
        """Have every collection of the gallery compacted, in the background of Milvus; the jobs by collection."""
        names: list[str] = self._calls.ask("list_collections")
        jobs = {}
        for name in sorted(each for each in names if each.startswith(self._prefix)):
            # Only what is in a segment on disk, row and removal, can be compacted.
            self._calls.ask("flush", name, timeout_s=_TIMEOUT_S)
            jobs[name] = int(self._calls.ask("compact", name))
        return jobs

    def state(self, job: int) -> Any:
        """Completed or executing, in the server's words."""
        return self._calls.ask("get_compaction_state", job)

    def close(self) -> None:
        self._calls.close()
