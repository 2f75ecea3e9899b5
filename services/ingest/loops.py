"""Background loops whose errors are seen: logged, backed off from, and told to readiness."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import structlog

from services.shared.errors import LikenessError

_FIRST_BACKOFF_S = 0.1
_LAST_BACKOFF_S = 5.0
_STOP_WAIT_S = 15.0  # longer than an analysis may take


class Loop:
    """Repeats `step` in a thread until it is stopped. `step` returns the seconds to rest before it is called again.

    A step that raises is logged and repeated with growing pauses; `problem` says why until a step succeeds.
    """

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        self.name = name
        self.problem = ""
        self._step = step
        self._stop = Event()
        self._wake = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self) -> None:
        """End the present rest."""
        self._wake.set()

    def ask_to_stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def join(self) -> None:
        self._thread.join(timeout=_STOP_WAIT_S)

    def _run(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stop.is_set():
            try:
                rest_s = self._step()
            except Exception as error:  # noqa: BLE001 - the border of the thread: logged, shown and tried again
                self._note(error)
                rest_s, backoff_s = backoff_s, min(backoff_s * 2, _LAST_BACKOFF_S)
            else:
                self.problem, backoff_s = "", _FIRST_BACKOFF_S
            if rest_s > 0:
                self._wake.wait(rest_s)
                self._wake.clear()

    def _note(self, error: Exception) -> None:
        log = structlog.get_logger()
        if isinstance(error, LikenessError):
            self.problem = error.detail
            log.warning("loop_step_failed", loop=self.name, code=error.code, detail=error.detail)
        else:
            self.problem = type(error).__name__
            log.error("loop_step_failed", loop=self.name, exc_info=error)
