"""How a service writes to the audit log: an intent before the act, an outcome after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.rpc.v1 import audit_pb2, common_pb2
from services.shared.clock import Clock, rfc3339
from services.shared.ids import new_id
from services.shared.tokens import Principal


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
        entry = audit_pb2.AuditEntry(
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
        return self._client.append(entry)
