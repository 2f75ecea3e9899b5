"""Every search that was opened gets exactly one terminal audit entry, whatever stops the service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from threading import Condition, Lock

import structlog

from services.rpc.v1 import audit_pb2
from services.search.identification.trail import SearchTrail
from services.search.ports import SearchStatus, SearchStore, StoredSearch
from services.shared.clock import Clock
from services.shared.errors import Conflict

SWEEP_BATCH = 200

_PHASES = {
    SearchStatus.REFUSED: audit_pb2.REFUSED,
    SearchStatus.FAILED: audit_pb2.FAILED,
}
_NO_OUTCOME = {
    "code": "outcome_unknown",
    "detail": "The service stopped before this search had an outcome; nothing was disclosed.",
    "advice": "Search again.",
}


class Closing:
    """Knows which searches run here and which have their terminal entry in the log but not yet in the store.

    A search that is open for longer than `orphan_age_s` and does not run here was left behind by a stopped process;
    the age has to be longer than any search takes: analysis 10 s, two audit entries of 2 s.

    The id of the terminal entry was stored before the search ran, and the log takes one entry an id: writing an outcome
    twice, here or in another process, cannot make two.
    """

    def __init__(self, store: SearchStore, trail: SearchTrail, clock: Clock, orphan_age_s: float) -> None:
        self._store = store
        self._trail = trail
        self._clock = clock
        self._orphan_age = timedelta(seconds=orphan_age_s)
        self._lock = Condition(Lock())
        self._flushing = Lock()
        self._running: set[str] = set()
        self._confirmed: dict[str, Mapping[str, float] | None] = {}

    @contextmanager
    def running(self, search_id: str) -> Iterator[None]:
        """While a search runs here nobody else gives it an outcome."""
        with self._lock:
            self._running.add(search_id)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(search_id)
                if not self._running:
                    self._lock.notify_all()

    def wait_for_none(self, at_most_s: float) -> bool:
        """Until no search runs here, which what can wait makes way for; False when the time was over before that."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._running, at_most_s)

    def confirm(self, search_id: str, timings_ms: Mapping[str, float] | None = None) -> None:
        """The terminal entry is in the log; the store learns it with the next flush, off the path of the answer."""
        with self._lock:
            self._confirmed[search_id] = timings_ms

    def flush(self) -> None:
        """Returns when everything confirmed before is stored. Raises DependencyUnavailable; then it is kept."""
        with self._flushing:
            with self._lock:
                batch = dict(self._confirmed)
            self._store.close(batch)
            with self._lock:
                for search_id in batch:
                    self._confirmed.pop(search_id, None)

    def sweep(self) -> None:
        """Give an outcome to searches that have none. Raises AuditUnavailable, DependencyUnavailable: try later."""
        self.flush()
        for search in self._store.unclosed(SWEEP_BATCH):
            if self._is_left_behind(search):
                self._close(search)
        self.flush()

    def _is_left_behind(self, search: StoredSearch) -> bool:
        with self._lock:
            if search.search_id in self._running or search.search_id in self._confirmed:
                return False
        return search.status in _PHASES or self._clock.now() - search.opened_at > self._orphan_age

    def _close(self, search: StoredSearch) -> None:
        reason = str((search.problem or _NO_OUTCOME)["code"])
        try:
            self._trail.ended(search, _PHASES.get(search.status, audit_pb2.UNKNOWN), reason)
            if search.status not in _PHASES:
                self._store.stop(search.search_id, SearchStatus.UNKNOWN, _NO_OUTCOME)
        except Conflict:
            # The log has its outcome. A stored answer stands; where there is none, nothing can be given out.
            if search.status is SearchStatus.OPEN:
                self._store.stop(search.search_id, SearchStatus.FAILED, _NO_OUTCOME)
        self.confirm(search.search_id)
        structlog.get_logger().warning("search_closed_late", search_id=search.search_id, status=search.status.value)
