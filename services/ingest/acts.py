"""Acts of people that begin with an intent in the audit log, and their one outcome there, whatever stops ingest."""

from __future__ import annotations

import sqlalchemy as sa

from services.ingest.access.give import ACCESS
from services.ingest.adapters.act_schema import open_acts
from services.ingest.exports.exporting import EXPORT
from services.ingest.flags.model import FlagStore
from services.ingest.flags.trail import DECISION, flag_of
from services.ingest.life.sweeping import SWEEP
from services.ingest.loops import Loop
from services.ingest.migrating.governance import ACTIVITY as MIGRATION
from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenAct, OpenActs, Settled, Settling, settled_removal
from services.rpc.sql_open_acts import SqlOpenActs
from services.shared.clock import Clock
from services.shared.ports.image_store import ImageStore

# Every intent has its end within a minute of a fault.
_ORPHAN_AGE_S = 30.0
_SWEEP_REST_S = 5.0
# What leaves the platform leaves after its outcome is in the log: what has none was given to nobody.
_GIVEN_LAST = frozenset({ACCESS, EXPORT})


def open_ingest_acts(engine: sa.Engine, recorder: AuditRecorder, clock: Clock) -> OpenActs:
    return OpenActs(SqlOpenActs(engine, open_acts), recorder, clock, _ORPHAN_AGE_S)


def sweeping(acts: OpenActs, flags: FlagStore, images: ImageStore, migrations: Settling) -> Loop:
    """The loop that gives an outcome to acts that were left behind."""

    def settle(act: OpenAct) -> Settled:
        if act.activity == DECISION:
            return Settled(is_decided(flags, act))
        if act.activity == SWEEP:
            return swept(images, act)
        if act.activity == MIGRATION:
            return migrations(act)
        return Settled(False if act.activity in _GIVEN_LAST else None)

    def step() -> float:
        acts.sweep(settle)
        return _SWEEP_REST_S

    return Loop("open-acts", step)


def swept(images: ImageStore, act: OpenAct) -> Settled:
    """How far a sweep of images came; one that was stored again since counts as left. Raises DependencyUnavailable."""
    named = [name.removeprefix("image:") for name in act.objects]
    left = sum(images.has(sha256) for sha256 in named)
    return settled_removal(len(named) - left, left)


def is_decided(flags: FlagStore, act: OpenAct) -> bool:
    """Whether a decision that was cut short is the one that the flag has."""
    flag = flags.find(flag_of(act.objects))
    if flag is None:
        return False
    decided = (flag.state.value, flag.decided_by, flag.reason)
    return decided == (act.details["decision"], act.principal.person_id, act.details["reason"])
