"""Flags in the audit log: that references were compared, that a flag was raised, what was decided about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from services.ingest.enrolling.enrolment import derived_id
from services.ingest.flags.model import CheckedReference, Flag
from services.rpc.auditing import BatchAuditRecorder, platform_principal
from services.rpc.open_acts import OpenAct, OpenActs
from services.rpc.v1 import audit_pb2
from services.shared.errors import Conflict
from services.shared.ids import new_id
from services.shared.tokens import Principal

CHECK = "flag_check"
FLAG = "gallery_flag"
DECISION = "flag_decision"
VIEW = "flag_view"
_FLAG = "flag:"


class FlagTrail:
    """Everything here raises AuditUnavailable."""

    def __init__(self, recorder: BatchAuditRecorder, acts: OpenActs) -> None:
        self._recorder = recorder
        self._acts = acts
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

    def raised(self, flags: Sequence[Flag]) -> None:
        """Before they are stored, with one flush. The same flag again, after a crash, is the same entry."""
        entries = [self._raising(flag) for flag in flags]
        try:
            self._recorder.record_all(entries)
        except Conflict:
            for entry in entries:
                self._raised_before(entry)

    def _raising(self, flag: Flag) -> audit_pb2.AuditEntry:
        return self._recorder.entry(
            audit_pb2.COMBINATION,
            audit_pb2.DONE,
            FLAG,
            flag.flag_id,
            self._platform,
            objects=_objects(flag),
            details={"kind": flag.kind.value, "band": flag.band, "points": flag.points_version},
            entry_id=derived_id(flag.flag_id, f"{FLAG}/raised"),
        )

    def _raised_before(self, entry: audit_pb2.AuditEntry) -> None:
        try:
            self._recorder.record_all([entry])
        except Conflict as error:
            # Written before a crash, under other points. The log keeps the first.
            structlog.get_logger().warning("audit_entry_stands", activity_id=entry.activity_id, code=error.code)

    def viewed(self, flag: Flag, principal: Principal) -> None:
        """Before it is shown."""
        objects = [_name(flag), *_objects(flag)]
        self._recorder.record(audit_pb2.CONSULTATION, audit_pb2.DONE, VIEW, new_id(), principal, objects=objects)

    @contextmanager
    def deciding(self, principal: Principal, flag: Flag, decision: str, reason: str) -> Iterator[None]:
        """The intent before the block, the outcome after it: an error that the block raises, or that it is decided."""
        act = OpenAct(
            activity=DECISION,
            operation=audit_pb2.ALTERATION,
            principal=principal,
            objects=[_name(flag), *_objects(flag)],
            details={"decision": decision, "reason": reason},
        )
        with self._acts.under_way(act):
            yield
            self._acts.end(act, audit_pb2.DONE, {"decision": decision})


def flag_of(objects: Sequence[str]) -> str:
    """The id of the flag that an entry is about; empty where it is about none."""
    return next((name.removeprefix(_FLAG) for name in objects if name.startswith(_FLAG)), "")


def _name(flag: Flag) -> str:
    return f"{_FLAG}{flag.flag_id}"


def _objects(flag: Flag) -> list[str]:
    return [f"watchlist:{flag.watchlist_id}", *(f"reference:{each.reference_id}" for each in flag.references)]
