"""How a service writes to the audit log: an intent before the act, an outcome after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from services.rpc.v1 import audit_pb2, common_pb2
from services.shared.clock import Clock, rfc3339
from services.shared.ids import new_id
from services.shared.rate_limits import RateExceeded
from services.shared.tokens import Principal

MAX_BATCH = 256  # the audit service takes no more at once


class AuditAppender(Protocol):
    """What the recorder needs of `services.rpc.clients.AuditClient`."""

    def append(self, entry: audit_pb2.AuditEntry) -> audit_pb2.AppendResponse:
        """Durable when it returns. Raises AuditUnavailable, Conflict."""
        ...


def platform_principal(service: str) -> Principal:
    """The actor of what a service does by itself (a sweep, a rebuild), where no person asked for it."""
    return Principal(person_id=f"service:{service}", force="", roles=frozenset(), watchlists=frozenset())


class AuditRecorder:
    """Writes the entries of one service. Safe for several threads.

    Record `Phase.INTENT` before anything is done or disclosed and an outcome (`DONE`, `REFUSED`, `FAILED`) after it,
    both with the same activity and activity_id. `record` raises AuditUnavailable when the entry is not known to be
    durable: then do not act and do not answer (fail closed).
    """

    def __init__(self, client: AuditAppender, service: str, clock: Clock) -> None:
        self._client = client
        self._service = service
        self._clock = clock

    def record(
        self,
        operation: audit_pb2.Operation.ValueType,
        phase: audit_pb2.Phase.ValueType,
        activity: str,
        activity_id: str,
        principal: Principal,
        *,
        purpose: str = "",
        case_reference: str = "",
        objects: Sequence[str] = (),
        recipients: Sequence[str] = (),
        details: Mapping[str, str] | None = None,
        entry_id: str | None = None,
    ) -> audit_pb2.AppendResponse:
        """Append one entry; durable when it returns.

        `objects` and `recipients` are "kind:id"; `details` holds facts as text, never biometric data. Give `entry_id`
        (a UUIDv7 that the caller keeps) where the same entry may be written again after a crash: the log then keeps
        the first, provided that all but the time is the same. Without it a new id is made.
        Raises AuditUnavailable, Conflict (another entry under that id), InvalidRequest.
        """
        entry = self.entry(
            operation,
            phase,
            activity,
            activity_id,
            principal,
            purpose=purpose,
            case_reference=case_reference,
            objects=objects,
            recipients=recipients,
            details=details,
            entry_id=entry_id,
        )
        return self._client.append(entry)

    def entry(
        self,
        operation: audit_pb2.Operation.ValueType,
        phase: audit_pb2.Phase.ValueType,
        activity: str,
        activity_id: str,
        principal: Principal,
        *,
        purpose: str = "",
        case_reference: str = "",
        objects: Sequence[str] = (),
        recipients: Sequence[str] = (),
        details: Mapping[str, str] | None = None,
        entry_id: str | None = None,
    ) -> audit_pb2.AuditEntry:
        """What `record` would append, not appended."""
        return audit_pb2.AuditEntry(
            entry_id=entry_id or new_id(),
            operation=operation,
            phase=phase,
            activity_id=activity_id,
            activity=activity,
            actor=common_pb2.Actor(person_id=principal.person_id, force=principal.force, roles=sorted(principal.roles)),
            service=self._service,
            purpose=purpose,
            case_reference=case_reference,
            objects=objects,
            recipients=recipients,
            details=dict(details or {}),
            occurred_at=rfc3339(self._clock.now()),
        )


class BatchAuditAppender(AuditAppender, Protocol):
    """What the batch recorder needs of `services.rpc.clients.AuditClient`."""

    def append_all(self, entries: Sequence[audit_pb2.AuditEntry]) -> None:
        """Durable when it returns. Raises AuditUnavailable, Conflict: then all of them can be appended again."""
        ...


class BatchAuditRecorder(AuditRecorder):
    """A recorder for a service that does many things at once."""

    def __init__(self, client: BatchAuditAppender, service: str, clock: Clock) -> None:
        super().__init__(client, service, clock)
        self._batch_client = client

    def record_all(self, entries: Sequence[audit_pb2.AuditEntry]) -> None:
        """Append what `entry` made; durable when it returns. Several share one call and one flush.

        Raises AuditUnavailable, Conflict, InvalidRequest, for the first that fails. What became of the others is then
        not known; give entries whose ids are kept, so that they can be recorded again.
        """
        if len(entries) == 1:
            self._batch_client.append(entries[0])
            return
        for start in range(0, len(entries), MAX_BATCH):
            self._batch_client.append_all(entries[start : start + MAX_BATCH])


def rate_reporter(recorder: AuditRecorder) -> Callable[[Principal, RateExceeded], None]:
    """Records who sent too many requests: once a minute a caller, however many they were."""

    def report(principal: Principal, error: RateExceeded) -> None:
        recorder.record(
            audit_pb2.CONSULTATION,
            audit_pb2.REFUSED,
            "rate_limit",
            new_id(),
            principal,
            details={"reason": error.code, "scope": error.scope},
        )

    return report
