"""Puts flags together; the composition root calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import grpc
import sqlalchemy as sa
from fastapi import APIRouter

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.sql_flags import SqlFlags
from services.ingest.adapters.template_vault import TemplateVault
from services.ingest.auditing import EnrolmentAudit
from services.ingest.flags.api import FlagsApi
from services.ingest.flags.checking import CheckReferences
from services.ingest.flags.deciding import DecideFlag
from services.ingest.flags.model import FlagStore
from services.ingest.flags.trail import FlagTrail
from services.ingest.loops import Loop
from services.rpc.auditing import BatchAuditRecorder
from services.rpc.open_acts import OpenActs
from services.rpc.upkeep import NeighbourClient
from services.shared.clock import Clock
from services.shared.telemetry import Metrics
from services.shared.tokens import TokenVerifier


@dataclass(frozen=True)
class FlagParts:
    """What flags take from the rest of ingest. `per_s`: references checked in a second at most; 0 for never."""

    engine: sa.Engine
    committer: GroupCommitter
    vault: TemplateVault
    search: grpc.Channel
    recorder: BatchAuditRecorder
    acts: OpenActs
    audit: EnrolmentAudit
    verifier: TokenVerifier
    model_id: Callable[[], str]
    watchlists: Callable[[], Iterable[str]]
    pending: Callable[[], int]
    clock: Clock
    metrics: Metrics
    per_s: float


@dataclass(frozen=True)
class Flags:
    """What they give back: a loop to run, routes to serve."""

    loops: Sequence[Loop]
    router: APIRouter
    store: FlagStore


def build_flags(parts: FlagParts) -> Flags:
    store = SqlFlags(parts.engine, parts.committer, parts.vault)
    trail = FlagTrail(parts.recorder, parts.acts)
    api = FlagsApi(
        store=store,
        deciding=DecideFlag(store, trail, parts.clock),
        audit=parts.audit,
        verifier=parts.verifier,
    )
    return Flags(loops=_loops(parts, store, trail), router=api.router(), store=store)


def _loops(parts: FlagParts, store: SqlFlags, trail: FlagTrail) -> list[Loop]:
    if not parts.per_s:
        return []
    checking = CheckReferences(
        store=store,
        neighbours=NeighbourClient(parts.search),
        trail=trail,
        model_id=parts.model_id,
        watchlists=parts.watchlists,
        pending=parts.pending,
        clock=parts.clock,
        metrics=parts.metrics,
        per_s=parts.per_s,
    )
    return [Loop("flags", checking.step)]
