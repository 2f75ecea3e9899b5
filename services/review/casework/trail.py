"""What review writes to the audit log: an intent before every act, exactly one outcome after it.

The id of the outcome's entry is chosen and stored before the intent is written, and what an act did is stored in one
transaction with the words of its outcome. So after a crash the sweep writes under the same id what was stored (DONE,
with the judgement's digest), or UNKNOWN where nothing was, and the log keeps whichever came first. What the sweep has
given up can no longer be stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import structlog

from services.review.model import AuditPosition, Case
from services.review.ports import AuditTrail, OpenAct, ReviewStore, Settlement
from services.rpc.v1 import audit_pb2
from services.shared.clock import Clock
from services.shared.errors import AuditUnavailable, Conflict, LikenessError
from services.shared.ids import is_id, new_id
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal

ORPHAN_AGE = timedelta(seconds=60)  # longer than any act takes, a search of two pictures included
_SWEPT_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class About:
    """What an act is about: purpose and case as the request states them, objects as "kind:id"."""

    objects: tuple[str, ...] = ()
    purpose: str = ""
    case_reference: str = ""

    @classmethod
    def case(cls, case: Case, *objects: str) -> About:
        return cls((f"request:{case.request_id}", *objects), case.request.purpose, case.request.case_reference)

    @classmethod
    def unknown(cls, request_id: str) -> About:
        """A request that was not found; what is no id at all is not copied into the log."""
        return cls((f"request:{request_id if is_id(request_id) else 'malformed'}",))


@dataclass(slots=True)
class Act:
    """An act under way. Put into `details` and `objects` what the outcome has to say."""

    activity_id: str
    intent: AuditPosition
    # What is remembered of it while it is open.
    remembered: bytes
    details: dict[str, str] = field(default_factory=dict)
    objects: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    is_settled: bool = False

    @contextmanager
    def settling(self) -> Iterator[Settlement]:
        """Store what the act does with this settlement: from then on it is done, whatever stops the service.

        `details` and `objects` have to be complete before. Not for an act that goes on after it is stored.
        """
        outcome = _Outcome(audit_pb2.DONE, self.details, self.objects, self.recipients)
        yield Settlement(self.activity_id, self.remembered, _with_outcome(self.remembered, outcome))
        self.is_settled = True


@dataclass(frozen=True, slots=True)
class _Entry:
    """What an act's intent says and its outcome repeats."""

    operation: audit_pb2.Operation.ValueType
    activity: str
    activity_id: str
    principal: Principal
    about: About


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the terminal entry says beside what the intent did."""

    phase: audit_pb2.Phase.ValueType
    details: Mapping[str, str] = field(default_factory=dict)
    objects: Sequence[str] = ()
    recipients: Sequence[str] = ()


_STOPPED = _Outcome(audit_pb2.UNKNOWN, {"reason": "stopped"})


class CaseTrail:
    """Entries of casework. Every method raises AuditUnavailable: then nothing was done, or nothing is given out."""

    def __init__(self, recorder: AuditTrail, store: ReviewStore, clock: Clock, metrics: Metrics) -> None:
        self._recorder = recorder
        self._metrics = metrics
        self._store = store
        self._clock = clock
        # By activity id: what runs here nobody here gives up, however long it takes.
        self._running: set[str] = set()

    @contextmanager
    def act(
        self,
        principal: Principal,
        activity: str,
        about: About,
        operation: audit_pb2.Operation.ValueType = audit_pb2.ALTERATION,
        details: Mapping[str, str] | None = None,
    ) -> Iterator[Act]:
        """Record the intent, run the block, record its outcome: DONE, REFUSED for the caller's fault, FAILED."""
        entry = _Entry(operation, activity, new_id(), principal, about)
        outcome_id = new_id()
        remembered = _packed(entry)
        self._store.open_act(OpenAct(entry.activity_id, outcome_id, self._clock.now(), remembered))
        intent_id = new_id()
        appended = self._record(entry, audit_pb2.INTENT, details or {}, intent_id)
        act = Act(entry.activity_id, _position(appended, intent_id), remembered)
        self._running.add(entry.activity_id)
        try:
            yield act
        except Exception as error:
            if not isinstance(error, AuditUnavailable):
                self._end(entry, _done(act) if act.is_settled else _failed(error), outcome_id)
            raise
        else:
            self._end(entry, _done(act), outcome_id)
        finally:
            self._running.discard(entry.activity_id)

    def refused(self, principal: Principal, activity: str, about: About, error: LikenessError) -> None:
        """A request that was never begun: not permitted, not there, incomplete, too late."""
        entry = _Entry(audit_pb2.CONSULTATION, activity, new_id(), principal, about)
        self._record(entry, audit_pb2.REFUSED, {"reason": error.code, **_reasons(error)}, new_id())

    def consulted(
        self, principal: Principal, activity: str, about: About, details: Mapping[str, str] | None = None
    ) -> AuditPosition:
        """Before something is shown: who sees it."""
        entry = _Entry(audit_pb2.CONSULTATION, activity, new_id(), principal, about)
        return self._given(entry, details or {}, [f"person:{principal.person_id}"])

    def disclosed(self, principal: Principal, activity: str, about: About, recipients: Sequence[str]) -> AuditPosition:
        """Before a result leaves: to whom."""
        entry = _Entry(audit_pb2.DISCLOSURE, activity, new_id(), principal, about)
        return self._given(entry, {}, recipients)

    def sweep(self) -> None:
        """Give every act that a crash left open its outcome: what was stored, or UNKNOWN. Run it again and again."""
        for act in self._store.open_acts(self._clock.now() - ORPHAN_AGE, _SWEPT_AT_ONCE):
            if act.activity_id in self._running:
                continue
            outcome = _stored_outcome(act.entry)
            if outcome is None:
                given_up = Settlement(act.activity_id, act.entry, _with_outcome(act.entry, _STOPPED))
                if not self._store.settle_act(given_up):
                    continue  # it was stored, or ended, at this moment
            self._end(_unpacked(act), outcome or _STOPPED, act.outcome_entry_id)
            structlog.get_logger().warning("act_closed_late", activity_id=act.activity_id)

    def _given(self, entry: _Entry, details: Mapping[str, str], recipients: Sequence[str]) -> AuditPosition:
        entry_id = new_id()
        return _position(self._record(entry, audit_pb2.DONE, details, entry_id, recipients=recipients), entry_id)

    def _end(self, entry: _Entry, outcome: _Outcome, entry_id: str) -> None:
        try:
            self._record(
                entry,
                outcome.phase,
                outcome.details,
                entry_id,
                objects=outcome.objects,
                recipients=outcome.recipients,
            )
        except Conflict:
            structlog.get_logger().info("act_outcome_stands", activity_id=entry.activity_id)
        self._store.close_act(entry.activity_id)

    def _record(
        self,
        entry: _Entry,
        phase: audit_pb2.Phase.ValueType,
        details: Mapping[str, str],
        entry_id: str,
        *,
        objects: Sequence[str] = (),
        recipients: Sequence[str] = (),
    ) -> audit_pb2.AppendResponse:
        if phase != audit_pb2.INTENT:
            outcome = audit_pb2.Phase.Name(phase).lower()
            self._metrics.review_steps_total.labels(entry.activity, outcome).inc()
        return self._recorder.record(
            entry.operation,
            phase,
            entry.activity,
            entry.activity_id,
            entry.principal,
            purpose=entry.about.purpose,
            case_reference=entry.about.case_reference,
            objects=[*entry.about.objects, *objects],
            recipients=recipients,
            details=details,
            entry_id=entry_id,
        )


def _position(appended: audit_pb2.AppendResponse, entry_id: str) -> AuditPosition:
    return AuditPosition(appended.sequence, appended.leaf_hash.hex(), entry_id, appended.recorded_at)


def _reasons(error: LikenessError) -> dict[str, str]:
    told = {}
    if reasons := error.context.get("reasons"):
        told["reasons"] = ",".join(str(reason) for reason in reasons)
    if fields := error.context.get("fields"):
        told["fields"] = ",".join(str(field["field"]) for field in fields)[:200]
    return told


def _done(act: Act) -> _Outcome:
    return _Outcome(audit_pb2.DONE, act.details, act.objects, act.recipients)


def _failed(error: Exception) -> _Outcome:
    """REFUSED for the caller's fault."""
    if not isinstance(error, LikenessError):
        return _Outcome(audit_pb2.FAILED, {"reason": LikenessError.code})
    phase = audit_pb2.REFUSED if error.caller_fault else audit_pb2.FAILED
    return _Outcome(phase, {"reason": error.code, **_reasons(error)})


def _with_outcome(packed: bytes, outcome: _Outcome) -> bytes:
    told = {
        "phase": outcome.phase,
        "details": dict(outcome.details),
        "objects": list(outcome.objects),
        "recipients": list(outcome.recipients),
    }
    return orjson.dumps({**orjson.loads(packed), "outcome": told})


def _stored_outcome(packed: bytes) -> _Outcome | None:
    told = orjson.loads(packed).get("outcome")
    return None if told is None else _Outcome(**told)


def _packed(entry: _Entry) -> bytes:
    principal, about = entry.principal, entry.about
    return orjson.dumps(
        {
            "operation": entry.operation,
            "activity": entry.activity,
            "person_id": principal.person_id,
            "force": principal.force,
            "roles": sorted(principal.roles),
            "objects": list(about.objects),
            "purpose": about.purpose,
            "case_reference": about.case_reference,
        }
    )


def _unpacked(act: OpenAct) -> _Entry:
    told: dict[str, Any] = orjson.loads(act.entry)
    return _Entry(
        told["operation"],
        told["activity"],
        act.activity_id,
        Principal(told["person_id"], told["force"], frozenset(told["roles"]), frozenset()),
        About(tuple(told["objects"]), told["purpose"], told["case_reference"]),
    )
