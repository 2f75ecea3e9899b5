"""Acts that begin with an intent in the log get exactly one outcome there, whatever stops the service in between.

What the intent said is stored before it is written to the log, with the ids of both entries; it is forgotten once the
outcome is there. What is still known some time later was left behind by a stopped process: the sweep writes the intent
again, which changes nothing where the log has it, and an outcome. The log takes one entry an id: none is doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Protocol

import structlog

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2
from services.shared.clock import Clock
from services.shared.errors import AuditUnavailable, CallerError, Conflict, DependencyUnavailable, LikenessError
from services.shared.ids import new_id
from services.shared.tokens import Principal

STOPPED = "service_stopped"
_BATCH = 100


@dataclass(frozen=True, slots=True)
class OpenAct:
    """An act as its entries tell of it. `version` is the agreement record that it makes; 0 where it makes none."""

    activity: str
    operation: audit_pb2.Operation.ValueType
    principal: Principal
    objects: Sequence[str]
    details: Mapping[str, str]
    purpose: str = ""
    case_reference: str = ""
    version: int = 0
    # Who gets something by it once it is done, as "kind:id"; the person who does it where nobody is named.
    recipients: Sequence[str] = ()
    activity_id: str = field(default_factory=new_id)
    intent_entry_id: str = field(default_factory=new_id)
    outcome_entry_id: str = field(default_factory=new_id)


class OpenActStore(Protocol):
    """Where open acts are kept. All methods raise DependencyUnavailable."""

    def add(self, act: OpenAct, opened_at: datetime) -> None:
        """Durable when it returns."""
        ...

    def remove(self, activity_id: str) -> None: ...

    def keep(self, activity_ids: Sequence[str], moment: datetime) -> None:
        """They are being worked on: as if opened at that moment."""
        ...

    def opened_before(self, moment: datetime, limit: int) -> Sequence[OpenAct]:
        """Oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an act that was cut short: whether the whole of it took effect, None where nobody can know; and
    what else its outcome tells, of an act that was done in part for one."""

    took_effect: bool | None
    facts: Mapping[str, str] = field(default_factory=dict)


# Finds out by what is stored. May raise DependencyUnavailable: it is asked again.
Settling = Callable[[OpenAct], Settled]


def settled_removal(gone: int, left: int) -> Settled:
    """Of things that an act was to remove: done where none is left, else how far it came."""
    return Settled(left == 0, {"gone": str(gone), "left": str(left)})


class OpenActs:
    """Writes intents and outcomes. All methods raise AuditUnavailable, DependencyUnavailable."""

    def __init__(self, store: OpenActStore, recorder: AuditRecorder, clock: Clock, orphan_age_s: float) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._orphan_age = timedelta(seconds=orphan_age_s)
        self._lock = Lock()
        self._running: set[str] = set()

    @contextmanager
    def under_way(self, act: OpenAct) -> Iterator[audit_pb2.AppendResponse]:
        """Begin it, and let no sweep of any process give it an outcome until the block ends, however long it takes.

        The block writes its own DONE with `end`, as its last step. A LikenessError that it raises is the
        outcome; where the log cannot be written there is none, and the sweep makes one.
        """
        with self._lock:
            self._running.add(act.activity_id)
        try:
            intent = self.begin(act)
            try:
                yield intent
            except AuditUnavailable:
                raise
            except LikenessError as error:
                phase = audit_pb2.REFUSED if isinstance(error, CallerError) else audit_pb2.FAILED
                self.end(act, phase, {"reason": error.code})
                raise
        finally:
            with self._lock:
                self._running.discard(act.activity_id)

    def begin(self, act: OpenAct) -> audit_pb2.AppendResponse:
        """The intent is in the log when it returns."""
        self._store.add(act, self._clock.now())
        return self._record(act, audit_pb2.INTENT, act.details, act.intent_entry_id)

    def end(
        self,
        act: OpenAct,
        phase: audit_pb2.Phase.ValueType,
        details: Mapping[str, str],
        objects: Sequence[str] = (),
    ) -> None:
        """The outcome is in the log when it returns. `objects` come beside those of the act."""
        self._record(act, phase, details, act.outcome_entry_id, objects)
        try:
            self._store.remove(act.activity_id)
        except DependencyUnavailable as error:
            # The log has the outcome, and that is what counts; the sweep finds it there.
            structlog.get_logger().warning("open_act_not_forgotten", activity_id=act.activity_id, detail=error.detail)

    def sweep(self, settling: Settling) -> None:
        """Give an outcome to acts that were left behind."""
        with self._lock:
            running = sorted(self._running)
        if running:
            self._store.keep(running, self._clock.now())
        for act in self._store.opened_before(self._clock.now() - self._orphan_age, _BATCH):
            settled = settling(act)
            is_done = settled.took_effect
            phase = audit_pb2.UNKNOWN if is_done is None else audit_pb2.DONE if is_done else audit_pb2.FAILED
            self._record(act, audit_pb2.INTENT, act.details, act.intent_entry_id)
            try:
                self._record(act, phase, _told(act, phase, settled.facts), act.outcome_entry_id)
            except Conflict:
                phase = audit_pb2.PHASE_UNSPECIFIED  # the log has its outcome
            self._store.remove(act.activity_id)
            structlog.get_logger().warning(
                "act_closed_late", activity=act.activity, activity_id=act.activity_id, phase=audit_pb2.Phase.Name(phase)
            )

    def _record(
        self,
        act: OpenAct,
        phase: audit_pb2.Phase.ValueType,
        details: Mapping[str, str],
        entry_id: str,
        objects: Sequence[str] = (),
    ) -> audit_pb2.AppendResponse:
        return self._recorder.record(
            act.operation,
            phase,
            act.activity,
            act.activity_id,
            act.principal,
            purpose=act.purpose,
            case_reference=act.case_reference,
            objects=[*act.objects, *objects],
            recipients=_recipients(act, phase),
            details=details,
            entry_id=entry_id,
        )


def _told(act: OpenAct, phase: audit_pb2.Phase.ValueType, facts: Mapping[str, str]) -> Mapping[str, str]:
    """What was done keeps the reason for which it was done."""
    if phase == audit_pb2.DONE:
        return {**act.details, "settled": STOPPED, **facts}
    return {**act.details, "reason": STOPPED, **facts}


def _recipients(act: OpenAct, phase: audit_pb2.Phase.ValueType) -> Sequence[str]:
    """Who erases gets nothing."""
    if phase != audit_pb2.DONE or act.operation == audit_pb2.ERASURE:
        return []
    return act.recipients or [f"person:{act.principal.person_id}"]
