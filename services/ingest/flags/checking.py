"""The background that checks what was enrolled and raises flags. Nobody waits for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from services.ingest.flags.model import (
    UNLIKE,
    CheckedReference,
    Flag,
    FlaggedReference,
    FlagKind,
    FlagState,
    FlagStore,
    flag_id_of,
    flag_key,
)
from services.ingest.flags.trail import FlagTrail
from services.rpc.v1 import search_pb2
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailable, GalleryIncomplete, ModelMismatch
from services.shared.telemetry import Metrics

BATCH = 16
# While more than this wait to be enrolled, the machine is theirs.
_BUSY_PENDING = 64
_BUSY_REST_S = 2.0
_IDLE_REST_S = 2.0
# Where no points are set for the model in use there is nothing to do until an administrator sets some.
_NO_POINTS_REST_S = 60.0
_LAPSE_EVERY_S = 30.0
# Written together, so that a search that begins meanwhile has little in its way.
_RAISED_AT_ONCE = 32
_BANDS = ("probable", "strong", "near_identical")


class Neighbours(Protocol):
    """The gallery, as flags need it; `services.rpc.upkeep.NeighbourClient`."""

    def find(self, request: search_pb2.FindNeighboursRequest) -> search_pb2.FindNeighboursResponse: ...


class CheckReferences:
    """Checks every enrolled reference once, in ledger order, `per_s` in a second at most; after a restart it goes on
    where it was.

    1. audit entry (COMBINATION) for a group of one owner and watchlist, before it is compared: no kill leaves it open;
    2. search compares them, within that owner and watchlist alone;
    3. audit entries of new flags, then the flags, some at once;
    4. the place in the ledger.

    Search does 2 when no search runs there, and is asked for such a moment before 3; where searches never pause it
    waits a second and no longer. A crash before 4 checks the group again: flags are known by what they are about, so
    that none is raised twice.
    """

    def __init__(
        self,
        *,
        store: FlagStore,
        neighbours: Neighbours,
        trail: FlagTrail,
        model_id: Callable[[], str],
        watchlists: Callable[[], Iterable[str]],
        pending: Callable[[], int],
        clock: Clock,
        metrics: Metrics,
        per_s: float,
    ) -> None:
        self._store = store
        self._neighbours = neighbours
        self._trail = trail
        self._model_id = model_id
        self._watchlists = watchlists
        self._pending = pending
        self._clock = clock
        self._metrics = metrics
        self._per_s = per_s
        self._lapse_due_s = 0.0

    def step(self) -> float:
        """One group of one watchlist; the seconds to rest. Raises AuditUnavailable, DependencyUnavailable."""
        self._keep_house()
        if self._pending() > _BUSY_PENDING:
            return _BUSY_REST_S
        model_id = self._model_id()
        for watchlist_id in self._watchlists():
            page = self._store.next_page(watchlist_id, model_id, BATCH)
            if page is None:
                continue
            for group in _by_owner(page.references):
                rest_s = self._check(model_id, group)
                if rest_s:
                    return rest_s
            self._store.advance(watchlist_id, page.done_to)
            return len(page.references) / self._per_s
        return _IDLE_REST_S

    def _check(self, model_id: str, group: Sequence[CheckedReference]) -> float:
        """Seconds to rest before the same group is tried again; 0 when it is checked."""
        try:
            # Asked before anything is written to the log, so that a search that is away fills no log with attempts.
            points = self._neighbours.find(_request(model_id, group, is_empty=True)).points_version
        except (ModelMismatch, GalleryIncomplete):
            return _BUSY_REST_S  # the gallery loads, or changes its model
        if not points:
            return _NO_POINTS_REST_S
        self._trail.compared(group, points)
        answer = self._neighbours.find(_request(model_id, group))
        found = [
            flag
            for reference, finding in zip(group, answer.findings, strict=True)
            for flag in self._flags_of(reference, finding, answer.points_version, model_id)
        ]
        for start in range(0, len(found), _RAISED_AT_ONCE):
            self._await_turn(model_id, group)
            self._raise(found[start : start + _RAISED_AT_ONCE])
        self._metrics.ingest_flag_checks_total.labels(group[0].watchlist_id).inc(len(group))
        return 0.0

    def _flags_of(
        self, reference: CheckedReference, finding: search_pb2.NeighbourFinding, points: str, model_id: str
    ) -> list[Flag]:
        ids = [each.reference_id for each in finding.neighbours]
        # The gallery may be a moment behind the ledger, and synthetic references are nobody's.
        known = self._store.enrolments_of(reference.owner, reference.watchlist_id, ids) if ids else {}
        found = []
        for each in finding.neighbours:
            if each.reference_id in known:
                other = FlaggedReference(known[each.reference_id], each.reference_id, each.subject_id)
                found.append(self._pair(reference, other, each.band, points, model_id))
        if finding.is_unlike_own:
            found.append(self._flag(FlagKind.WRONG_SUBJECT, reference, (), UNLIKE, points, model_id))
        return found

    def _pair(
        self, reference: CheckedReference, other: FlaggedReference, band: str, points: str, model_id: str
    ) -> Flag:
        is_one_subject = other.subject_id == reference.subject_id
        kind = FlagKind.DUPLICATE if is_one_subject else FlagKind.SAME_PERSON
        return self._flag(kind, reference, (other,), band, points, model_id)

    def _flag(  # noqa: PLR0917 - what a flag says, in the order in which one says it
        self,
        kind: FlagKind,
        reference: CheckedReference,
        others: Sequence[FlaggedReference],
        band: str,
        points: str,
        model_id: str,
    ) -> Flag:
        own = FlaggedReference(reference.enrolment_id, reference.reference_id, reference.subject_id)
        references = (own, *others)
        subjects = sorted({each.subject_id for each in references})
        # Two subjects are one matter, however many of their images are alike.
        parts = subjects if kind is FlagKind.SAME_PERSON else [each.reference_id for each in references]
        key = flag_key(kind, reference.owner, reference.watchlist_id, parts)
        return Flag(
            flag_id=flag_id_of(reference.enrolment_id, key),
            kind=kind,
            owner=reference.owner,
            watchlist_id=reference.watchlist_id,
            subject_id=subjects[0],
            other_subject_id=subjects[1] if len(subjects) > 1 else "",
            key=key,
            band=band,
            points_version=points,
            model_id=model_id,
            raised_at_ms=self._now_ms(),
            references=references,
        )

    def _await_turn(self, model_id: str, group: Sequence[CheckedReference]) -> None:
        """Search answers when no search runs, or after a moment all the same. What is known of the points stays true
        whatever became of the gallery meanwhile."""
        with suppress(ModelMismatch, GalleryIncomplete, DependencyUnavailable):
            self._neighbours.find(_request(model_id, group, is_empty=True))

    def _raise(self, found: Sequence[Flag]) -> None:
        """The log and the store are flushed once for all of them."""
        by_key: dict[str, list[Flag]] = defaultdict(list)
        for flag in found:
            by_key[flag.key].append(flag)
        known = dict(self._store.known(list(by_key)))
        # The same matter may be found from several references; the first raises it, the others join it.
        self._add([same[0] for key, same in by_key.items() if key not in known])
        repeated = [key for key, same in by_key.items() if key not in known and len(same) > 1]
        if repeated:
            known |= self._store.known(repeated)
        for key, same in by_key.items():
            if key in known:
                self._extend(known[key], same)

    def _add(self, fresh: Sequence[Flag]) -> None:
        if not fresh:
            return
        self._trail.raised(fresh)
        for flag, is_added in zip(fresh, self._store.add(fresh), strict=True):
            if is_added:
                self._metrics.ingest_flags_total.labels(flag.watchlist_id, flag.kind.value, flag.band).inc()
                structlog.get_logger().info("flag_raised", flag_id=flag.flag_id, kind=flag.kind.value, band=flag.band)

    def _extend(self, known: Flag, found: Sequence[Flag]) -> None:
        """Further images of two subjects that are flagged already. What was decided stays decided."""
        has = {each.reference_id for each in known.references}
        further = {each.reference_id: each for flag in found for each in flag.references}
        new = [each for reference_id, each in further.items() if reference_id not in has]
        bands = [known.band, *(flag.band for flag in found)]
        band = max(bands, key=lambda each: _BANDS.index(each) if each in _BANDS else -1)
        if known.state is FlagState.OPEN and (new or band != known.band):
            self._store.extend(known, new, band)

    def _keep_house(self) -> None:
        """Now and then: end flags whose references are gone, and count what is open."""
        now_s = self._clock.monotonic_s()
        if now_s < self._lapse_due_s:
            return
        self._lapse_due_s = now_s + _LAPSE_EVERY_S
        try:
            lapsed = self._store.lapse(self._now_ms())
            counts = self._store.counts()
        except DependencyUnavailable:
            self._lapse_due_s = 0.0
            raise
        if lapsed:
            structlog.get_logger().info("flags_lapsed", count=lapsed)
        self._metrics.ingest_open_flags.clear()
        for (watchlist_id, kind, state), count in counts.items():
            if state == FlagState.OPEN:
                self._metrics.ingest_open_flags.labels(watchlist_id, kind).set(count)

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _by_owner(references: Sequence[CheckedReference]) -> Iterable[Sequence[CheckedReference]]:
    groups: dict[tuple[str, int], list[CheckedReference]] = defaultdict(list)
    for reference in references:
        groups[reference.owner, reference.dimension].append(reference)
    return groups.values()


def _request(
    model_id: str, group: Sequence[CheckedReference], *, is_empty: bool = False
) -> search_pb2.FindNeighboursRequest:
    first = group[0]
    return search_pb2.FindNeighboursRequest(
        watchlist_id=first.watchlist_id,
        owner=first.owner,
        model_id=model_id,
        dimension=first.dimension,
        probes=[
            search_pb2.NeighbourProbe(
                reference_id=each.reference_id,
                subject_id=each.subject_id,
                vector=each.template,
                own_vectors=each.own_templates,
            )
            for each in ([] if is_empty else group)
        ],
    )
