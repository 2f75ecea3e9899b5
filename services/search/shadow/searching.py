"""The use case: a search that was answered is made once more with the other model, and the lists are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, Full, Queue
from threading import Lock
from typing import Any, Protocol

import structlog

from services.rpc.v1 import embed_pb2
from services.search.identification.candidates import is_permitted, list_candidates
from services.search.ports import Candidate, SearchScope
from services.search.serving.lanes import Lane, ModelLanes
from services.search.shadow.comparing import compare, document
from services.search.shadow.settings import ShadowSettings
from services.shared.biometric import Box, FaceTemplate
from services.shared.clock import Clock
from services.shared.errors import LikenessError
from services.shared.telemetry import Metrics

_OVERFETCH = 4
_ROUNDS = 3
_SAME_FACE = 0.4  # of the two boxes together
_WAIT_S = 0.2
_FLUSH_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Answered:
    """A search as it was answered: what is needed to make it again, and the list to compare with."""

    model_id: str
    probe: bytes
    face_index: int
    face_box: Box
    scopes: Sequence[SearchScope]
    candidates: Sequence[Candidate]
    wanted: int
    # Why it cannot be compared: a threshold belongs to one model; several stills have several templates. Else empty.
    not_comparable: str = ""


class KeepsCounts(Protocol):
    """`services.search.shadow.store.SqlShadowCounts`."""

    def keep(self, migration_id: str, served_model_id: str, counts: Mapping[str, int]) -> None: ...

    def of(self, migration_id: str) -> Mapping[str, Counter[str]]: ...


class ShadowSearches:
    """`offer` is called by searches and never delays, changes or fails one; `work` is called in a thread of its own.

    What comes of a shadow search is counted and forgotten: who was found stands in no store, log, metric or answer.
    """

    def __init__(
        self, lanes: ModelLanes, store: KeepsCounts, clock: Clock, settings: ShadowSettings, metrics: Metrics
    ) -> None:
        self._lanes = lanes
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._pause_s = 1 / settings.at_most_per_s
        self._queue: Queue[Answered] = Queue(settings.waiting)
        self._lock = Lock()
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._flushed_s = 0.0
        self._next_s = 0.0

    def offer(self, answered: Answered) -> None:
        """Have it repeated when there is room and a migration under way."""
        if self._lanes.shadow_of(answered.model_id) is None:
            return
        try:
            self._queue.put_nowait(answered)
        except Full:
            self._dropped[self._lanes.view.migration_id, answered.model_id] += 1

    def work(self) -> None:
        """Repeat what waits, at the bounded rate; returns when nothing waits or the rate asks for a pause."""
        while self._clock.monotonic_s() >= self._next_s:
            try:
                answered = self._queue.get(timeout=_WAIT_S)
            except Empty:
                break
            self._next_s = self._clock.monotonic_s() + self._pause_s
            self._repeat(answered)
        self._flush()

    def report(self, migration_id: str) -> dict[str, Any]:
        """Both directions: the former model in service, and the new one. Raises DependencyUnavailable."""
        self._flush(at_once=True)
        found = {model_id: document(counts) for model_id, counts in sorted(self._store.of(migration_id).items())}
        return {
            "migration_id": migration_id,
            "searches": sum(each["searches"] for each in found.values()),
            "by_model_in_service": found,
        }

    def _repeat(self, answered: Answered) -> None:
        lane, migration_id = self._lanes.shadow_of(answered.model_id), self._lanes.view.migration_id
        if lane is None:
            return
        key = (migration_id, answered.model_id)
        try:
            found = self._compared(answered, lane)
        except LikenessError as error:
            found = Counter({f"failed/{error.code}": 1})
        except Exception as error:  # noqa: BLE001 - nothing of a shadow may reach a search; it is logged and counted
            structlog.get_logger().error("shadow_search_failed", exc_info=error)
            found = Counter({"failed/internal_error": 1})
        self._observe(found)
        with self._lock:
            self._counts.setdefault(key, Counter()).update(found)

    def _observe(self, found: Counter[str]) -> None:
        outcome = "compared" if found["searches"] else next(iter(found)).partition("/")[0]
        self._metrics.search_shadow_searches_total.labels(outcome).inc()
        for lists, name in (("both", "shared"), ("longer", "listed")):
            self._metrics.search_shadow_candidates_total.labels(lists).inc(found[f"overlap/10/{name}"])

    def _compared(self, answered: Answered, lane: Lane) -> Counter[str]:
        if answered.not_comparable:
            return Counter({f"not_comparable/{answered.not_comparable}": 1})
        template = _template(answered, lane)
        if template is None:
            return Counter({"not_comparable/face_not_found": 1})
        candidates = self._search(answered, lane, template)
        return compare(answered.candidates, candidates, answered.model_id, template.model_id)

    def _search(self, answered: Answered, lane: Lane, template: FaceTemplate) -> Sequence[Candidate]:
        may_be_returned = partial(is_permitted, scopes=answered.scopes, at_unix_s=self._clock.now().timestamp())
        limit = answered.wanted * _OVERFETCH
        candidates: Sequence[Candidate] = ()
        for _ in range(_ROUNDS):
            found = lane.keeper.search(template.model_id, template.vector, answered.scopes, limit)
            candidates = list_candidates(found.hits, answered.wanted, thresholds=None, may_be_returned=may_be_returned)
            if len(candidates) == answered.wanted or limit >= found.compared:
                break
            limit *= _OVERFETCH
        return candidates

    def _flush(self, *, at_once: bool = False) -> None:
        if not at_once and self._clock.monotonic_s() - self._flushed_s < _FLUSH_EVERY_S:
            return
        self._flushed_s = self._clock.monotonic_s()
        with self._lock:
            for key, dropped in self._dropped.copy().items():
                self._counts.setdefault(key, Counter())["dropped"] = dropped
            found = {key: dict(counts) for key, counts in self._counts.items()}
        for (migration_id, model_id), counts in found.items():
            self._store.keep(migration_id, model_id, counts)


def _template(answered: Answered, lane: Lane) -> FaceTemplate | None:
    """The other model's template of the face that was searched. Its detector may list the faces in another order."""
    index = answered.face_index
    for _ in range(2):
        analysis = lane.embed.analyse(answered.probe, embed_pb2.AnalyseRequest.BY_INDEX, index)
        shares = [_overlap(answered.face_box, face.box) for face in analysis.faces]
        if not shares or max(shares) < _SAME_FACE:
            return None
        best = shares.index(max(shares))
        template = analysis.faces[best].template
        if template is not None:
            return template
        index = best
    return None


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / (one.width * one.height + other.width * other.height - shared)
