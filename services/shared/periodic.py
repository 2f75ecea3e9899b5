"""A piece of work that is done again and again in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Thread
from time import monotonic

import structlog

from services.shared.errors import LikenessError

STOP_WITHIN_S = 5.0


class Periodic:
    """Calls `work` at once and then every `interval_s` until stopped. An error is logged and the next turn comes."""

    def __init__(self, name: str, work: Callable[[], None], interval_s: float) -> None:
        self._name = name
        self._work = work
        self._interval_s = interval_s
        self._stopping = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = STOP_WITHIN_S) -> None:
        """Returns when the turn under way has ended, at most after the timeout."""
        stop_all([self], timeout_s)

    def ask_to_stop(self) -> None:
        """The turn under way is the last one."""
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        log = structlog.get_logger()
        while not self._stopping.is_set():
            try:
                self._work()
            except LikenessError as error:
                log.warning("periodic_work_failed", work=self._name, code=error.code, detail=error.detail)
            except Exception:
                log.exception("periodic_work_broke", work=self._name)
            self._stopping.wait(self._interval_s)


def stop_all(periodics: Sequence[Periodic], timeout_s: float = STOP_WITHIN_S) -> None:
    """Stop several in the time of one: each may be waiting for a peer that is gone already."""
    for periodic in periodics:
        periodic.ask_to_stop()
    ends_at_s = monotonic() + timeout_s
    for periodic in periodics:
        periodic.join(max(0.0, ends_at_s - monotonic()))
