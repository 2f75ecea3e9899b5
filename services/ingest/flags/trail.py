"""Flags in the audit log: that references were compared, that a flag was raised, what was decided about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from services.ingest.enrolment import derived_id
from services.ingest.flags.model import CheckedReference, Flag
from services.rpc.auditing import AuditRecorder, platform_principal
from services.rpc.v1 import audit_pb2
from services.shared.errors import Conflict
from services.shared.ids import new_id
from services.shared.tokens import Principal

CHECK = "flag_check"
FLAG = "gallery_flag"
DECISION = "flag_decision"
VIEW = "flag_view"


class FlagTrail:
    """Everything here raises AuditUnavailable."""

    def __init__(self, recorder: AuditRecorder) -> None:
        self._recorder = recorder
        self._platform = platform_principal("ingest")

    def compared(self, group: Sequence[CheckedReference], points: str) -> None:
        """Before they are compared."""
        self._recorder.record(
            audit_pb2.COMBINATION,
            audit_pb2.DONE,
            CHECK,
            new_id(),
            self._platform,
            objects=[f"watchlist:{group[0].watchlist_id}", *(f"reference:{each.reference_id}" for each in group)],
            details={"owner": group[0].owner, "references": str(len(group)), "points": points},
        )

    def raised(self, flag: Flag) -> None:
        """Before it is stored. The same flag again, after a crash, is the same entry."""
        details = {"kind": flag.kind.value, "band": flag.band, "points": flag.points_version}
        try:
            self._recorder.record(
                audit_pb2.COMBINATION,
                audit_pb2.DONE,
                FLAG,
                flag.flag_id,
                self._platform,
                objects=_objects(flag),
                details=details,
                entry_id=derived_id(flag.flag_id, f"{FLAG}/raised"),
            )
        except Conflict as error:
            # Written before a crash, under other points. The log keeps the first.
            structlog.get_logger().warning("audit_entry_stands", activity_id=flag.flag_id, code=error.code)

    def viewed(self, flag: Flag, principal: Principal) -> None:
        """Before it is shown."""
        self._record(audit_pb2.CONSULTATION, audit_pb2.DONE, (VIEW, new_id()), principal, flag, {})

    def decide(
        self,
        phase: audit_pb2.Phase.ValueType,
        activity_id: str,
        principal: Principal,
        flag: Flag,
        details: Mapping[str, str],
    ) -> None:
        self._record(audit_pb2.ALTERATION, phase, (DECISION, activity_id), principal, flag, details)

    def _record(  # noqa: PLR0917 - what an entry says, in the order in which one says it
        self,
        operation: audit_pb2.Operation.ValueType,
        phase: audit_pb2.Phase.ValueType,
        activity: tuple[str, str],
        principal: Principal,
        flag: Flag,
        details: Mapping[str, str],
    ) -> None:
        objects = [f"flag:{flag.flag_id}", *_objects(flag)]
        self._recorder.record(operation, phase, *activity, principal, objects=objects, details=details)


def _objects(flag: Flag) -> list[str]:
    return [f"watchlist:{flag.watchlist_id}", *(f"reference:{each.reference_id}" for each in flag.references)]
