"""An act that was cut short after its intent gets exactly one outcome, and the right one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import STOPPED, OpenAct, OpenActs, Settled, settled_removal
from services.rpc.sql_open_acts import SqlOpenActs
from services.rpc.v1 import audit_pb2
from services.search.adapters.schema import open_acts
from services.search.adapters.sql_agreement_store import SqlAgreementStore
from services.search.bootstrap import MIGRATIONS
from services.search.disclosure.access import APPROVAL, DISCLOSURE, REPLAY
from services.search.disclosure.approvals import Approval
from services.search.policy.governing import settling_by
from services.shared.database import create_engine, migrate
from services.shared.errors import AuditUnavailable, Conflict
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from services.shared.tokens import Principal

WHO = Principal("ad-1", "northshire", frozenset({"administrator"}), frozenset())


class Log:
    """The audit log as far as ids go: one entry an id, the same one again changes nothing."""

    def __init__(self) -> None:
        self.entries: dict[str, audit_pb2.AuditEntry] = {}
        self.is_down = False

    def append(self, entry: audit_pb2.AuditEntry) -> audit_pb2.AppendResponse:
        if self.is_down:
            raise AuditUnavailable("down")
        known = self.entries.setdefault(entry.entry_id, entry)
        said = [audit_pb2.AuditEntry.FromString(each.SerializeToString()) for each in (known, entry)]
        for each in said:
            each.occurred_at = ""
        if said[0] != said[1]:
            raise Conflict("another entry under that id")
        return audit_pb2.AppendResponse()

    def phases(self) -> list[str]:
        return [audit_pb2.Phase.Name(entry.phase) for entry in self.entries.values()]


class Approvals:
    """ApprovalStore in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, Approval] = {}

    def add(self, approval: Approval) -> None:
        self._kept[approval.approval_id] = approval

    def find(self, approval_id: str) -> Approval | None:
        return self._kept.get(approval_id)

    def use(self, approval_id: str, at: datetime) -> bool:
        return self._kept.pop(approval_id, None) is not None


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 6, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.at.timestamp()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    made = create_engine(DatabaseSettings(url=f"sqlite:///{tmp_path / 'search.sqlite'}"))
    migrate(made, MIGRATIONS)
    yield made
    made.dispose()


class Desk:
    """Open acts over a real store."""

    def __init__(self, engine: sa.Engine) -> None:
        self.log, self.clock = Log(), Clock()
        self.store = SqlOpenActs(engine, open_acts)
        self.acts = OpenActs(self.store, AuditRecorder(self.log, "search", self.clock), self.clock, 20.0)

    def sweep(self, took_effect: bool | None) -> None:
        self.clock.at += timedelta(seconds=21)
        self.acts.sweep(lambda _act: Settled(took_effect))


@pytest.fixture
def desk(engine: sa.Engine) -> Desk:
    return Desk(engine)


def _act() -> OpenAct:
    told = {"owner": "westhaven", "key_id": "w-1"}
    return OpenAct("agreement_registration", audit_pb2.ALTERATION, WHO, ["agreement:W-1"], told, version=1)


@pytest.mark.parametrize(("took_effect", "phase"), [(True, "DONE"), (False, "FAILED"), (None, "UNKNOWN")])
def test_what_was_left_behind_gets_the_outcome_that_it_had(desk: Desk, took_effect: bool | None, phase: str) -> None:
    act = _act()
    desk.acts.begin(act)
    desk.acts.sweep(lambda _act: Settled(took_effect))
    assert desk.log.phases() == ["INTENT"], "it may still be running"
    for _ in range(2):
        desk.sweep(took_effect)
        assert desk.log.phases() == ["INTENT", phase]
    outcome = desk.log.entries[act.outcome_entry_id]
    assert (outcome.activity_id, outcome.actor.person_id) == (act.activity_id, "ad-1")
    if took_effect:
        assert dict(outcome.details) == {**act.details, "settled": STOPPED}
    else:
        assert outcome.details["reason"] == STOPPED


def test_an_act_that_was_done_in_part_says_how_far_it_came(desk: Desk) -> None:
    acts = [_act(), _act()]
    for act in acts:
        desk.acts.begin(act)
    desk.clock.at += timedelta(seconds=21)
    desk.acts.sweep(lambda act: settled_removal(2, int(act.activity_id == acts[0].activity_id)))
    part, whole = (desk.log.entries[act.outcome_entry_id] for act in acts)
    assert (part.phase, part.details["gone"], part.details["left"]) == (audit_pb2.FAILED, "2", "1")
    assert (whole.phase, whole.details["gone"], whole.details["left"]) == (audit_pb2.DONE, "2", "0")


def test_what_has_its_outcome_is_left_alone(desk: Desk) -> None:
    act = _act()
    desk.acts.begin(act)
    desk.acts.end(act, audit_pb2.DONE, act.details)
    desk.sweep(False)
    assert desk.log.phases() == ["INTENT", "DONE"]
    # Stopped between the entry and the note that it is there.
    desk.store.add(act, desk.clock.now())
    desk.sweep(False)
    assert desk.log.phases() == ["INTENT", "DONE"]
    desk.sweep(False)
    assert desk.store.opened_before(desk.clock.now(), 10) == []


def test_stopped_before_the_intent_or_while_the_log_was_away(desk: Desk) -> None:
    desk.log.is_down = True
    with pytest.raises(AuditUnavailable):
        desk.acts.begin(_act())
    with pytest.raises(AuditUnavailable):
        desk.sweep(False)
    desk.log.is_down = False
    desk.sweep(False)
    assert desk.log.phases() == ["INTENT", "FAILED"]


def test_of_a_disclosure_nothing_left_and_an_approval_that_was_stored_stands(desk: Desk, engine: sa.Engine) -> None:
    stored = Approval(new_id(), "s-1", "The court", "CPIA", "sue", desk.clock.at, desk.clock.at + timedelta(days=1))
    approvals = Approvals()
    approvals.add(stored)
    never = replace(stored, approval_id=new_id())
    settling = settling_by(SqlAgreementStore(engine), approvals)
    expected = {DISCLOSURE: "FAILED", REPLAY: "FAILED", "of_an_older_version": "UNKNOWN"}
    acts = [OpenAct(name, audit_pb2.DISCLOSURE, WHO, ["search:s-1"], {"reason": "CPIA"}) for name in expected]
    acts += [OpenAct(APPROVAL, audit_pb2.DISCLOSURE, WHO, ["search:s-1"], one.told()) for one in (stored, never)]
    for act in acts:
        desk.acts.begin(act)
    desk.clock.at += timedelta(seconds=21)
    desk.acts.sweep(settling)
    outcomes = [desk.log.entries[act.outcome_entry_id] for act in acts]
    assert [audit_pb2.Phase.Name(one.phase) for one in outcomes] == [*expected.values(), "DONE", "FAILED"]
    assert dict(outcomes[-2].details) == {**stored.told(), "settled": STOPPED}, "with the reason of the approval"
