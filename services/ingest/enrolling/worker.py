"""Working off accepted enrolments: claim, analyse, settle, each in threads of its own, joined by queues."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Lock
from time import sleep

import structlog

from services.ingest.enrolling.analysis import ImageAnalyst, Interrupted, TryAgain
from services.ingest.enrolling.enrolment import Decision, PendingEnrolment
from services.ingest.enrolling.settlement import SettleEnrolments
from services.ingest.loops import Loop
from services.ingest.ports import EnrolmentLedger
from services.ingest.settings import WorkerSettings
from services.shared.biometric import ModelProvenance
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailable, LikenessError, PlatformError
from services.shared.tracing import resumed

_IDLE_REST_S = 1.0  # accepting wakes the worker at once; this finds what another process left
_WAIT_S = 0.25  # how often a waiting thread looks whether it should stop
_PROBE_REST_S = 0.2
_STUCK_REST_S = 5.0  # between attempts at what the gallery does not take


@dataclass(slots=True)
class _Desk:
    """What the threads share: the claimed enrolments on their way."""

    work: SimpleQueue[PendingEnrolment] = field(default_factory=SimpleQueue)
    decided: SimpleQueue[tuple[PendingEnrolment, Decision | None]] = field(default_factory=SimpleQueue)
    suspects: deque[PendingEnrolment] = field(default_factory=deque)
    # Open while embed is there. Closed by whoever finds it gone, opened again by the claimer.
    gate: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)
    held: int = 0
    active: int = 0

    def add_held(self, count: int) -> None:
        with self.lock:
            self.held += count

    def begin_analysis(self) -> bool:
        """False when the gate is closed. Once it is closed and nothing is active, nothing becomes active."""
        with self.lock:
            is_open = self.gate.is_set()
            self.active += is_open
            return is_open

    def end_analysis(self) -> None:
        with self.lock:
            self.active -= 1

    def suspect(self, pending: PendingEnrolment) -> None:
        """Embed went away while it had this one."""
        with self.lock:
            self.suspects.append(pending)
            self.gate.clear()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing more will be decided without a new claim."""
        return self.work.empty() and self.active == 0


class EnrolmentWorker:
    """Claims in ledger order, keeps `concurrency` images at embed, settles in groups. Loses nothing: what it holds
    when the process dies is claimed again after the restart.

    When embed goes away, analysing stops until it is back. The images it had then are tried one at a time before the
    others go on, so that one that takes embed down is found out and quarantined without taking others with it.
    """

    def __init__(
        self,
        *,
        ledger: EnrolmentLedger,
        analyst: ImageAnalyst,
        settlement: SettleEnrolments,
        probe_embed: Callable[[], ModelProvenance],
        clock: Clock,
        settings: WorkerSettings,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._capacity = 4 * settings.concurrency + settings.settle_batch
        self._desk = _Desk()
        self._desk.gate.set()
        self._analyst = analyst
        self._probe_embed = probe_embed
        self._settler = _Settler(settlement, self._desk, settings, clock, self.wake)
        self._claimer = Loop("claim", self._claim)
        self._loops = [
            self._claimer,
            *(Loop(f"analyse-{number}", self._analyse) for number in range(settings.concurrency)),
            Loop("settle", self._settler.step),
            Loop("renew-claims", self._renew),
        ]

    @property
    def loops(self) -> Sequence[Loop]:
        return self._loops

    def wake(self) -> None:
        """There is something to claim."""
        self._claimer.wake()

    def release_claims(self) -> None:
        """Before the start: free what this instance held when it was stopped."""
        self._ledger.release_claims()

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def _lease_until_ms(self) -> int:
        return self._now_ms() + int(self._settings.lease_s * 1000)

    def _renew(self) -> float:
        if self._desk.held:
            self._ledger.renew_claims(self._lease_until_ms())
        return self._settings.lease_s / 3

    def _claim(self) -> float:
        if not self._desk.gate.is_set():
            return self._recover()
        room = self._capacity - self._desk.held
        if room < self._settings.concurrency:
            return _WAIT_S  # the settler wakes this loop when it has made room
        claimed = self._ledger.claim(room, self._now_ms(), self._lease_until_ms())
        self._desk.add_held(len(claimed))
        for pending in claimed:
            if pending.decision is None:
                self._desk.work.put(pending)
            else:
                self._desk.decided.put((pending, None))
        return 0.0 if claimed else _IDLE_REST_S

    def _analyse(self) -> float:
        if not self._desk.gate.wait(_WAIT_S):
            return 0.0
        try:
            pending = self._desk.work.get(timeout=_WAIT_S)
        except Empty:
            return 0.0
        if not self._desk.begin_analysis():
            self._desk.work.put(pending)
            return 0.0
        try:
            with resumed("enrol", pending.traceparent):
                outcome = self._analyst.decide(pending)
        except Interrupted:
            self._desk.suspect(pending)
            self._claimer.wake()
            return 0.0
        except PlatformError:
            self._desk.work.put(pending)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this image's and must not lose it
            structlog.get_logger().error("analysis_failed", enrolment_id=pending.enrolment_id, exc_info=error)
            outcome = self._analyst.count_crash(pending, type(error).__name__)
        finally:
            self._desk.end_analysis()
        return self._pass_on(pending, outcome)

    def _pass_on(self, pending: PendingEnrolment, outcome: Decision | TryAgain) -> float:
        if isinstance(outcome, TryAgain):
            self._desk.work.put(outcome.pending)
            return outcome.pause_s
        self._desk.decided.put((pending, outcome))
        return 0.0

    def _recover(self) -> float:
        """Embed went away. Wait for it, then try alone what it had."""
        if self._desk.active:
            return _PROBE_REST_S  # the other calls are failing just now, or still running into their deadline
        try:
            self._probe_embed()
        except DependencyUnavailable:
            return _PROBE_REST_S
        while self._desk.suspects:
            pending = self._desk.suspects.popleft()
            try:
                with resumed("enrol", pending.traceparent):
                    outcome = self._analyst.decide(pending, is_alone=True)
            except PlatformError:
                self._desk.suspects.appendleft(pending)
                raise
            if isinstance(outcome, TryAgain):
                self._desk.suspects.appendleft(outcome.pending)
                return _PROBE_REST_S
            self._desk.decided.put((pending, outcome))
        self._desk.gate.set()
        return 0.0


class _Settler:
    """Gathers decided enrolments and settles them in groups; keeps a group until it is settled."""

    def __init__(
        self,
        settlement: SettleEnrolments,
        desk: _Desk,
        settings: WorkerSettings,
        clock: Clock,
        wake_claimer: Callable[[], None],
    ) -> None:
        self._settlement = settlement
        self._desk = desk
        self._settings = settings
        self._clock = clock
        self._wake_claimer = wake_claimer
        self._undecided: list[tuple[PendingEnrolment, Decision]] = []
        self._groups: deque[Sequence[PendingEnrolment]] = deque()
        self._stuck: list[PendingEnrolment] = []
        self._stuck_again_at_s = 0.0

    def step(self) -> float:
        if not self._undecided and not self._groups:
            self._gather()
        if self._undecided:
            self._write_decisions()
        while self._groups:
            self._settle(self._groups[0])  # stays the first when it raises, and is tried again
            self._groups.popleft()
        return 0.0

    def _gather(self) -> None:
        """Wait for the first; then for company as long as more is coming, but not beyond the linger."""
        self._retry_stuck()
        try:
            batch = [self._desk.decided.get(timeout=_WAIT_S)]
        except Empty:
            return
        ends_at_s = self._clock.monotonic_s() + self._settings.settle_linger_s
        while len(batch) < self._settings.settle_batch:
            try:
                batch.append(self._desk.decided.get_nowait())
            except Empty:
                if self._desk.is_quiet or self._clock.monotonic_s() >= ends_at_s:
                    break
                sleep(0.005)
        self._undecided = [(pending, decision) for pending, decision in batch if decision is not None]
        resumed = [pending for pending, decision in batch if decision is None]
        if resumed:
            self._groups.append(resumed)

    def _write_decisions(self) -> None:
        standing = self._settlement.write_decisions(self._undecided)
        self._leave(len(self._undecided) - len(standing))  # withdrawn meanwhile
        self._undecided = []
        if standing:
            self._groups.append(standing)

    def _settle(self, group: Sequence[PendingEnrolment]) -> None:
        try:
            self._settlement.settle(group)
        except LikenessError as error:
            if error.retriable:
                raise
            self._set_apart(group, error)
        else:
            self._leave(len(group))

    def _set_apart(self, group: Sequence[PendingEnrolment], error: LikenessError) -> None:
        """Trying again at once will not help; find whom it concerns, so that the others go on."""
        if len(group) > 1:
            self._groups.extend([pending] for pending in group)
            return
        structlog.get_logger().error(
            "enrolment_stuck", enrolment_id=group[0].enrolment_id, code=error.code, detail=error.detail
        )
        self._stuck.extend(group)
        self._stuck_again_at_s = self._clock.monotonic_s() + _STUCK_REST_S

    def _retry_stuck(self) -> None:
        if self._stuck and self._clock.monotonic_s() >= self._stuck_again_at_s:
            self._groups.append(self._stuck)
            self._stuck = []

    def _leave(self, count: int) -> None:
        self._desk.add_held(-count)
        self._wake_claimer()
