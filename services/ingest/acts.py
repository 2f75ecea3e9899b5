"""Acts of people that begin with an intent in the audit log, and their one outcome there, whatever stops ingest."""

from __future__ import annotations

import sqlalchemy as sa

from services.ingest.access.give import ACCESS
from services.ingest.adapters.act_schema import open_acts
from services.ingest.exports.exporting import EXPORT
from services.ingest.flags.model import FlagStore
from services.ingest.flags.trail import DECISION, flag_of
from services.ingest.loops import Loop
from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenAct, OpenActs
from services.rpc.sql_open_acts import SqlOpenActs
from services.shared.clock import Clock

# Every intent has its end within a minute of a fault.
_ORPHAN_AGE_S = 30.0
_SWEEP_REST_S = 5.0
# What leaves the platform leaves after its outcome is in the log: what has none was given to nobody.
_GIVEN_LAST = frozenset({ACCESS, EXPORT})


def open_ingest_acts(engine: sa.Engine, recorder: AuditRecorder, clock: Clock) -> OpenActs:
    return OpenActs(SqlOpenActs(engine, open_acts), recorder, clock, _ORPHAN_AGE_S)


def sweeping(acts: OpenActs, flags: FlagStore) -> Loop:
    """The loop that gives an outcome to acts that were left behind."""

    def took_effect(act: OpenAct) -> bool | None:
        if act.activity in _GIVEN_LAST:
            return False
        return is_decided(flags, act) if act.activity == DECISION else None

    def step() -> float:
        acts.sweep(took_effect)
        return _SWEEP_REST_S

    return Loop("open-acts", step)


def is_decided(flags: FlagStore, act: OpenAct) -> bool:
    """Whether a decision that was cut short is the one that the flag has."""
    flag = flags.find(flag_of(act.objects))
    if flag is None:
        return False
    decided = (flag.state.value, flag.decided_by, flag.reason)
    return decided == (act.details["decision"], act.principal.person_id, act.details["reason"])
