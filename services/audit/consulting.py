"""Whoever reads the log does so in the log: the intent before anything is read, the outcome after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from services.audit.entries import Statement
from services.audit.log import AuditLog
from services.shared.clock import Clock, rfc3339
from services.shared.errors import Forbidden
from services.shared.ids import new_id
from services.shared.tokens import Principal

AUDITOR = "auditor"
# Looks at random searches and at what proves them; pages through nothing and exports nothing.
INSPECTOR = "inspector"
# Sees the figures of the own force, and no entry.
SUPERVISOR = "supervisor"


class Consulting:
    """What the use cases of reading have in common. Every call raises AuditUnavailable: then nothing is shown."""

    def __init__(self, log: AuditLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock

    def _begin(
        self,
        reader: Principal,
        activity: str,
        objects: tuple[str, ...],
        details: Mapping[str, str],
        *,
        roles: frozenset[str] = frozenset({AUDITOR}),
    ) -> Statement:
        """Raises Forbidden, recorded, for a caller without one of the roles."""
        self._require(reader, activity, roles)
        intent = self._statement(reader, activity, details, objects=objects)
        self._log.append(intent)
        return intent

    def _end(self, reader: Principal, intent: Statement, details: Mapping[str, str], *, phase: str = "DONE") -> None:
        outcome = self._statement(reader, intent.activity, details, objects=intent.objects, phase=phase)
        others = intent.recipients if phase == "DONE" else ()
        self._log.append(
            replace(
                outcome,
                activity_id=intent.activity_id,
                operation=intent.operation,
                recipients=(*outcome.recipients, *others),
            )
        )

    def _require(self, reader: Principal, activity: str, roles: frozenset[str]) -> None:
        if not reader.roles & roles:
            self._refused(reader, activity, "forbidden")
            named = " or ".join(f"`{role}`" for role in sorted(roles))
            raise Forbidden("Only auditors read the audit log.", advice=f"Ask for a token with the role {named}.")

    def _refused(self, reader: Principal, activity: str, problem: str) -> None:
        self._log.append(self._statement(reader, activity, {"problem": problem}, phase="REFUSED"))

    def _statement(
        self,
        reader: Principal,
        activity: str,
        details: Mapping[str, str],
        *,
        objects: tuple[str, ...] = (),
        phase: str = "INTENT",
    ) -> Statement:
        return Statement(
            entry_id=new_id(),
            operation="CONSULTATION",
            phase=phase,
            activity=activity,
            activity_id=new_id(),
            person_id=reader.person_id,
            force=reader.force,
            roles=tuple(sorted(reader.roles)),
            service="audit",
            purpose="audit",
            objects=objects,
            recipients=(f"person:{reader.person_id}",) if phase == "DONE" else (),
            details=details,
            occurred_at=rfc3339(self._clock.now()),
        )


def texts(**values: str) -> dict[str, str]:
    """What was given, as details of an entry."""
    return {name: value for name, value in values.items() if value}
