"""How services write to the log."""

from __future__ import annotations

import pytest

from services.rpc.auditing import AuditRecorder, platform_principal
from services.rpc.v1 import audit_pb2
from services.shared.clock import SystemClock
from services.shared.errors import AuditUnavailable
from services.shared.ids import is_id
from services.shared.tokens import Principal


class _Kept:
    """An audit log that keeps what it is given, or cannot."""

    def __init__(self) -> None:
        self.entries: list[audit_pb2.AuditEntry] = []
        self.is_down = False

    def append(self, entry: audit_pb2.AuditEntry) -> audit_pb2.AppendResponse:
        if self.is_down:
            raise AuditUnavailable("down")
        self.entries.append(entry)
        return audit_pb2.AppendResponse(sequence=len(self.entries) - 1)


def test_an_entry_says_who_when_why_on_what_and_to_whom() -> None:
    log = _Kept()
    principal = Principal("operator-17", "northshire", frozenset({"supervisor", "operator"}), frozenset({"custody"}))
    answer = AuditRecorder(log, "search", SystemClock()).record(
        audit_pb2.DISCLOSURE,
        audit_pb2.DONE,
        "search",
        "search-1",
        principal,
        purpose="crime_investigation",
        case_reference="NS/1",
        objects=["watchlist:custody"],
        recipients=["person:officer-4"],
        details={"candidates": "20"},
    )
    (entry,) = log.entries
    assert answer.sequence == 0
    assert is_id(entry.entry_id)
    assert (entry.operation, entry.phase, entry.service) == (audit_pb2.DISCLOSURE, audit_pb2.DONE, "search")
    assert (entry.actor.person_id, entry.actor.force) == ("operator-17", "northshire")
    assert list(entry.actor.roles) == ["operator", "supervisor"]
    assert entry.occurred_at.endswith("Z")
    assert dict(entry.details) == {"candidates": "20"}


def test_a_caller_may_keep_the_id_and_a_service_may_act_by_itself() -> None:
    log = _Kept()
    recorder = AuditRecorder(log, "ingest", SystemClock())
    for _ in range(2):
        recorder.record(
            audit_pb2.ERASURE,
            audit_pb2.INTENT,
            "sweep",
            "sweep-1",
            platform_principal("ingest"),
            entry_id="01912d68-783e-7a03-8467-5661c1243ad4",
        )
    assert {entry.entry_id for entry in log.entries} == {"01912d68-783e-7a03-8467-5661c1243ad4"}
    assert log.entries[0].actor.person_id == "service:ingest"


def test_what_cannot_be_recorded_is_not_done() -> None:
    log = _Kept()
    log.is_down = True
    with pytest.raises(AuditUnavailable):
        AuditRecorder(log, "search", SystemClock()).record(
            audit_pb2.CONSULTATION, audit_pb2.INTENT, "search", "search-1", platform_principal("search")
        )
