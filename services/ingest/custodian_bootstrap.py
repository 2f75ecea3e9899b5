"""The part of ingest's composition root that wires what custodians work with: flags, access packages, exports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import sqlalchemy as sa
from fastapi import APIRouter

from services.ingest.access.wiring import access_router
from services.ingest.acts import sweeping
from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.sql_exports import SqlExports
from services.ingest.adapters.template_vault import TemplateVault
from services.ingest.auditing import EnrolmentAudit
from services.ingest.exports.api import ExportsApi
from services.ingest.exports.exporting import ExportReferences
from services.ingest.exports.rules import ExportRules
from services.ingest.flags.wiring import FlagParts, build_flags
from services.ingest.life.certificates import CertificateSigner
from services.ingest.loops import Loop
from services.ingest.settings import IngestSettings
from services.rpc.auditing import BatchAuditRecorder
from services.rpc.clients import AgreementClient, AuditClient, open_peer
from services.rpc.open_acts import OpenActs, Settling
from services.shared.adapters.image_keys import ImageKeys
from services.shared.clock import Clock
from services.shared.ports.image_store import ImageStore
from services.shared.telemetry import Metrics
from services.shared.tokens import TokenVerifier
from services.shared.watchlists import WatchlistFile


@dataclass(frozen=True)
class DeskParts:
    """What custodians' tools take from the rest of ingest. `search`: the channel to it."""

    settings: IngestSettings
    engine: sa.Engine
    committer: GroupCommitter
    keys: ImageKeys | None
    images: ImageStore
    search: grpc.Channel
    signer: CertificateSigner
    audit: EnrolmentAudit
    audit_client: AuditClient
    acts: OpenActs
    settle_migration: Settling
    model_id: Callable[[], str]
    watchlists: WatchlistFile
    pending: Callable[[], int]
    clock: Clock
    metrics: Metrics


@dataclass(frozen=True)
class Desk:
    """What they give back: loops to run, routes to serve, what is to be closed."""

    loops: Sequence[Loop]
    routers: Sequence[APIRouter]
    close: Callable[[], None]


def build_desk(parts: DeskParts) -> Desk:
    """Raises ConfigurationError."""
    recorder = BatchAuditRecorder(parts.audit_client, "ingest", parts.clock)
    verifier = TokenVerifier(parts.settings.tokens)
    flags = build_flags(
        FlagParts(
            engine=parts.engine,
            committer=parts.committer,
            vault=TemplateVault(parts.keys),
            search=parts.search,
            recorder=recorder,
            acts=parts.acts,
            audit=parts.audit,
            verifier=verifier,
            model_id=parts.model_id,
            watchlists=lambda: parts.watchlists.current().ids,
            pending=parts.pending,
            clock=parts.clock,
            metrics=parts.metrics,
            per_s=parts.settings.flags.per_s,
        )
    )
    review = open_peer(parts.settings, "review")
    access = access_router(
        engine=parts.engine,
        images=parts.images,
        search=parts.search,
        review=review,
        audit=parts.audit,
        audit_client=parts.audit_client,
        acts=parts.acts,
        signer=parts.signer,
        verifier=verifier,
        clock=parts.clock,
        watchlists=lambda: parts.watchlists.current().ids,
    )
    store = SqlExports(parts.engine, parts.committer)
    rules = ExportRules(parts.watchlists, AgreementClient(parts.search), parts.settings.exports.recipients, parts.clock)
    exporting = ExportReferences(store, parts.images, rules, recorder, parts.acts, parts.clock)
    exports = ExportsApi(exporting, store, parts.audit, verifier).router()
    loops = [*flags.loops, sweeping(parts.acts, flags.store, parts.images, parts.settle_migration)]
    return Desk(loops=loops, routers=[flags.router, access, exports], close=review.close)
