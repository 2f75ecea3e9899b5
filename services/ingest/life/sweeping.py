"""Images that nothing names: stored by an upload that was cut off before its enrolment was accepted, and swept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from threading import Lock
from typing import Protocol

import structlog

from services.ingest.life.clock_guard import ClockGuard
from services.ingest.life.reconciliation import Drift
from services.ingest.ports import ImageHolds
from services.rpc.auditing import platform_principal
from services.rpc.open_acts import OpenAct, OpenActs
from services.rpc.v1 import audit_pb2
from services.shared.clock import Clock, rfc3339
from services.shared.errors import Conflict, DependencyUnavailable
from services.shared.ids import new_id
from services.shared.ports.image_store import StoredImage, SweepableImageStore
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal

SWEEP = "image_sweep"
# What is looked up in the ledger together, and what is removed under one entry of the audit log.
LOOKED_UP = 500
REMOVED_TOGETHER = 50
# A removal takes seconds. One that takes longer stops rather than outlive its hold (adapters/image_holds.py).
MAX_HOLD_S = 120.0


class TakenBack(Protocol):
    """Images that their owner took back before they were enrolled; `adapters.erasure_register`."""

    def taken_back(self, sha256s: Sequence[str]) -> frozenset[str]: ...


class NamedByLetters(Protocol):
    """Images that dead letters name which may be sent through once more; `life.dead_letters`."""

    def images(self) -> frozenset[str]: ...


@dataclass
class Sweep:
    """What one sweep found and did."""

    sweep_id: str
    started_at: str
    finished_at: str = ""
    images: int = 0
    # Named by nothing, and old enough that nothing under way can need them.
    orphans: Drift = field(default_factory=Drift)
    # Named by nothing so far, and younger than the grace: uploads under way, or orphans of tomorrow.
    young: int = 0
    removed: int = 0
    # Kept by the store's own lock; tried again by each sweep until the lock ends.
    locked: int = 0
    # Named or stored again while it was swept.
    spared: int = 0
    # Found and left where they are, because there are more than cut-off uploads leave, or the clock is not trusted.
    held_back: int = 0


@dataclass(frozen=True, slots=True)
class SweepRules:
    """`grace`: what was stored later is never swept. `limit`: of more orphans at once none is removed unless a person
    says so: a ledger restored from an older backup, or the wrong store, looks just like that."""

    grace: timedelta
    limit: int


class SweepImages:
    """Removes what nothing names. One at a time.

    The store is gone through; what is older than the grace and named by no row of the ledger (in any state), no intent
    of an upload under way, no image taken back by its owner and no dead letter is an orphan. Orphans are held, looked
    up once more, and removed while they are held: see adapters/image_holds.py for why no upload of the same bytes
    loses its image. The intent of a removal is in the audit log before anything is removed.
    """

    def __init__(
        self,
        *,
        images: SweepableImageStore,
        holds: ImageHolds,
        taken_back: TakenBack,
        letters: NamedByLetters,
        guard: ClockGuard,
        acts: OpenActs,
        metrics: Metrics,
        clock: Clock,
        rules: SweepRules,
    ) -> None:
        self._images = images
        self._holds = holds
        self._taken_back = taken_back
        self._letters = letters
        self._guard = guard
        self._acts = acts
        self._metrics = metrics
        self._clock = clock
        self._rules = rules
        self._lock = Lock()
        self._latest: Sweep | None = None
        self._show(young=0, locked=0, held_back=0)

    @property
    def latest(self) -> Sweep | None:
        return self._latest

    def run(self, principal: Principal, *, is_confirmed: bool = False) -> Sweep:
        """Sweep now. `is_confirmed`: remove the orphans however many there are.

        Raises Conflict when one is under way, DependencyUnavailable, AuditUnavailable.
        """
        report = self._report()
        for _ in self._steps(report, principal, is_confirmed=is_confirmed):
            pass
        return report

    def by_itself(self) -> Iterator[int]:
        """The same in steps, for a loop that paces it: how many images each step looked at."""
        yield from self._steps(self._report(), platform_principal("ingest"), is_confirmed=False)

    def _report(self) -> Sweep:
        return Sweep(new_id(), rfc3339(self._clock.now()))

    def _steps(self, report: Sweep, principal: Principal, *, is_confirmed: bool) -> Iterator[int]:
        if not self._lock.acquire(blocking=False):
            raise Conflict("A sweep is under way.", advice="Wait for that.", code="sweep_under_way")
        try:
            self._holds.release_left_behind(self._now_ms(), is_start=False)
            orphans: list[StoredImage] = []
            for some in self._listed():
                orphans += self._orphans(some, report)
                yield len(some)
            if self._may_remove(report, is_confirmed=is_confirmed):
                for start in range(0, len(orphans), REMOVED_TOGETHER):
                    some = orphans[start : start + REMOVED_TOGETHER]
                    self._remove(some, report, principal)
                    yield len(some)
            else:
                report.held_back = report.orphans.count
            report.finished_at = rfc3339(self._clock.now())
            self._tell(report)
            self._latest = report
        finally:
            self._lock.release()

    def _listed(self) -> Iterator[list[StoredImage]]:
        stored = self._images.stored()
        while some := list(islice(stored, LOOKED_UP)):
            yield some

    def _orphans(self, listed: Sequence[StoredImage], report: Sweep) -> list[StoredImage]:
        report.images += len(listed)
        before = self._clock.now() - self._rules.grace
        named = self._named([each.sha256 for each in listed])
        unnamed = [each for each in listed if each.sha256 not in named]
        old = [each for each in unnamed if each.stored_at < before]
        report.young += len(unnamed) - len(old)
        for each in old:
            report.orphans.note(each.sha256)
        return old

    def _named(self, sha256s: Sequence[str]) -> frozenset[str]:
        return self._holds.named(sha256s) | self._taken_back.taken_back(sha256s)

    def _may_remove(self, report: Sweep, *, is_confirmed: bool) -> bool:
        self._guard.observe()
        if not report.orphans.count:
            return True
        if not self._guard.is_trusted():
            return False  # on a clock that was set, everything may look old
        return is_confirmed or report.orphans.count <= self._rules.limit

    def _remove(self, orphans: Sequence[StoredImage], report: Sweep, principal: Principal) -> None:
        lettered = self._letters.images()
        by_image = {each.sha256: each for each in orphans}
        act = OpenAct(
            SWEEP,
            audit_pb2.ERASURE,
            principal,
            [f"image:{sha256}" for sha256 in sorted(by_image)],
            {"sweep_id": report.sweep_id, "reason": "nothing names these images"},
        )
        with self._acts.under_way(act):
            began_s = self._clock.monotonic_s()
            try:
                mine = self._holds.hold(act.activity_id, sorted(by_image), self._now_ms())
                # From here on an upload of the same bytes waits; one that came before has its intent where this looks.
                free = mine - self._named(sorted(mine)) - lettered
                done = {"removed": 0, "locked": 0, "spared": len(by_image) - len(free)}
                for sha256 in sorted(free):
                    if self._clock.monotonic_s() - began_s > MAX_HOLD_S:
                        raise DependencyUnavailable(
                            "Removing images takes longer than they may be held.",
                            advice="Operators: check the image store.",
                        )
                    done["removed" if self._images.discard(by_image[sha256]) else "locked"] += 1
            finally:
                self._holds.release(act.activity_id)
            self._acts.end(act, audit_pb2.DONE, {name: str(count) for name, count in done.items()})
        report.removed += done["removed"]
        report.locked += done["locked"]
        report.spared += done["spared"]
        self._metrics.ingest_swept_images_total.inc(done["removed"])

    def _tell(self, report: Sweep) -> None:
        self._show(young=report.young, locked=report.locked, held_back=report.held_back)
        log = structlog.get_logger()
        (log.error if report.held_back else log.info)(
            "images_swept",
            sweep_id=report.sweep_id,
            images=report.images,
            orphans=report.orphans.count,
            young=report.young,
            removed=report.removed,
            locked=report.locked,
            spared=report.spared,
            held_back=report.held_back,
        )

    def _show(self, **left: int) -> None:
        for state, count in left.items():
            self._metrics.ingest_orphan_images.labels(state).set(count)

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)
