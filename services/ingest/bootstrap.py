"""The composition root of ingest."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import sqlalchemy as sa

from services.ingest.acts import open_ingest_acts
from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.image_holds import SqlImageHolds
from services.ingest.adapters.owner_turns import owner_turns
from services.ingest.adapters.sql_ledger import SqlLedger
from services.ingest.adapters.sql_migrations import SqlMigrations
from services.ingest.adapters.sql_outbox import SqlOutbox
from services.ingest.adapters.sql_references import SqlReferenceReader, SqlSyntheticLedger
from services.ingest.adapters.sql_subjects import SqlSubjectReferences
from services.ingest.adapters.template_vault import TemplateVault
from services.ingest.auditing import EnrolmentAudit
from services.ingest.consent import SharingConsent
from services.ingest.custodian_bootstrap import Desk, DeskParts, build_desk
from services.ingest.enrolling.acceptance import AcceptEnrolments, Backlog
from services.ingest.enrolling.admission import Admission
from services.ingest.enrolling.analysis import ImageAnalyst
from services.ingest.enrolling.checks import LawfulnessChecks
from services.ingest.enrolling.settlement import SettleEnrolments
from services.ingest.enrolling.worker import EnrolmentWorker
from services.ingest.feed.custody_feed import CustodyFeed
from services.ingest.grpc_server import SERVICE_NAME, LedgerServicer
from services.ingest.http_api import EnrolmentApi
from services.ingest.life.wiring import Life, LifeParts, build_life, custody_topics
from services.ingest.life.withdrawal import WithdrawReference
from services.ingest.loops import Loop
from services.ingest.maintenance import BacklogWatch, CloseAbandonedIntents, LagWatch, ModelWatch, OutboxRelay
from services.ingest.migrating.embeds import BaseEmbed, Embeds
from services.ingest.migrating.grpc_server import SERVICE_NAME as MIGRATIONS_SERVICE
from services.ingest.migrating.grpc_server import MigrationsServicer
from services.ingest.migrating.upkeep import OwnGallery
from services.ingest.migrating.wiring import Migrating, MigratingParts, build_migrating
from services.ingest.models import CurrentModel
from services.ingest.reference_server import SERVICE_NAME as REFERENCES
from services.ingest.reference_server import ReferencesServicer
from services.ingest.service import IngestService
from services.ingest.settings import IngestSettings
from services.ingest.synthetic import FillSynthetic
from services.rpc.auditing import AuditRecorder, BatchAuditRecorder, rate_reporter
from services.rpc.clients import (
    AgreementClient,
    AuditClient,
    EmbedClient,
    GalleryClient,
    GalleryUpkeepClient,
    open_channel,
    open_peer,
)
from services.rpc.migration_clients import ServedModelsClient
from services.rpc.open_acts import OpenActs
from services.rpc.server import GrpcServer
from services.rpc.v1 import ingest_pb2_grpc, migration_pb2_grpc, reference_pb2_grpc
from services.shared.adapters.image_keys import ImageKeys
from services.shared.adapters.opening import (
    open_event_log,
    open_image_keys,
    open_originals,
    open_sweepable,
    scanner_in_words,
)
from services.shared.clock import Clock, SystemClock
from services.shared.consume import ConsumeLoop
from services.shared.database import create_engine, migrate
from services.shared.http import create_app, limit_rates, show_watchlists
from services.shared.ports.event_log import EventLog
from services.shared.ports.image_store import ImageStore
from services.shared.telemetry import Metrics
from services.shared.tokens import TokenVerifier
from services.shared.watchlists import WatchlistFile

MIGRATIONS = Path(__file__).parent / "migrations"
# The disk shares one flush among the images that are stored together.
_STORE_THREADS = 8
_WITHDRAWAL_REST_S = 1.0
_FORM_BYTES = 1024 * 1024  # of a batch beside its images


@dataclass(frozen=True)
class _Stores:
    """The ledger and what stands on its engine."""

    engine: sa.Engine
    committer: GroupCommitter
    ledger: SqlLedger
    holds: SqlImageHolds
    outbox: SqlOutbox
    references: SqlReferenceReader
    synthetic: SqlSyntheticLedger
    migrations: SqlMigrations

    @classmethod
    def open(cls, settings: IngestSettings, keys: ImageKeys | None) -> _Stores:
        instance = settings.instance or socket.gethostname()
        engine = create_engine(settings.database)
        migrate(engine, MIGRATIONS)
        committer, vault = GroupCommitter(engine), TemplateVault(keys)
        return cls(
            engine=engine,
            committer=committer,
            ledger=SqlLedger(engine, committer, instance, vault),
            holds=SqlImageHolds(engine, committer, instance),
            outbox=SqlOutbox(engine, committer),
            references=SqlReferenceReader(engine, vault),
            synthetic=SqlSyntheticLedger(engine, committer, instance),
            migrations=SqlMigrations(engine, committer),
        )


@dataclass(frozen=True)
class _Peers:
    """The other services."""

    channels: Sequence[grpc.Channel]
    embeds: Embeds
    served: ServedModelsClient
    gallery: GalleryClient
    upkeep: GalleryUpkeepClient
    audit: EnrolmentAudit
    audit_client: AuditClient
    agreements: AgreementClient

    @classmethod
    def connect(cls, settings: IngestSettings, clock: Clock) -> _Peers:
        embed, search, audit = (open_peer(settings, name) for name in ("embed", "search", "audit"))
        client = AuditClient(audit)
        recorded = EnrolmentAudit(BatchAuditRecorder(client, "ingest", clock))
        agreements = AgreementClient(search)
        gallery, upkeep = GalleryClient(search), GalleryUpkeepClient(search)
        channels, embeds = [embed, search, audit], [EmbedClient(embed)]
        if settings.candidate_embed:
            channels.append(open_channel(settings.candidate_embed, settings.tls, "embed"))
            embeds.append(EmbedClient(channels[-1]))
        served = ServedModelsClient(search)
        return cls(channels, Embeds(embeds), served, gallery, upkeep, recorded, client, agreements)


@dataclass(frozen=True)
class _Parts:
    """What the use cases share."""

    settings: IngestSettings
    metrics: Metrics
    clock: Clock
    stores: _Stores
    peers: _Peers
    images: ImageStore
    keys: ImageKeys | None
    log: EventLog
    watchlists: WatchlistFile
    pool: ThreadPoolExecutor
    # The embed of the ledger's own model.
    embed: BaseEmbed
    model: CurrentModel
    backlog: BacklogWatch
    acts: OpenActs

    @classmethod
    def open(cls, settings: IngestSettings, metrics: Metrics) -> _Parts:
        clock = SystemClock()
        watchlists = WatchlistFile(settings.watchlists_path)
        watchlists.current()  # a file that is wrong stops the start, not the first request
        keys = open_image_keys(settings.images)
        stores, peers = _Stores.open(settings, keys), _Peers.connect(settings, clock)
        embed = BaseEmbed(peers.embeds, stores.migrations)
        return cls(
            settings=settings,
            metrics=metrics,
            clock=clock,
            stores=stores,
            peers=peers,
            images=open_originals(settings.images, settings.scanner, metrics, clock, keys),
            keys=keys,
            log=open_event_log(settings.events),
            watchlists=watchlists,
            pool=ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="ingest-store"),
            embed=embed,
            model=CurrentModel(embed, stores.ledger),
            backlog=BacklogWatch(stores.ledger, stores.outbox, metrics),
            acts=open_ingest_acts(stores.engine, AuditRecorder(peers.audit_client, "ingest", clock), clock),
        )

    def now_ms(self) -> int:
        return int(self.clock.now().timestamp() * 1000)

    def close(self) -> None:
        self.pool.shutdown()
        self.stores.committer.close()
        self.stores.engine.dispose()
        if self.keys is not None:
            self.keys.close()
        self.log.close()
        for channel in self.peers.channels:
            channel.close()


def build(settings: IngestSettings, metrics: Metrics | None = None) -> IngestService:
    """Open the stores and wire the service; nothing is served yet. Raises ConfigurationError, DependencyUnavailable."""
    parts = _Parts.open(settings, metrics or Metrics())
    migrating = _migrating(parts)
    worker = _worker(parts, migrating)
    checks = LawfulnessChecks(parts.watchlists, parts.clock, parts.peers.agreements)
    life = _life(parts, migrating)
    acceptance = _acceptance(parts, checks, worker, life)
    withdrawal = WithdrawReference(parts.stores.ledger, parts.peers.gallery, parts.peers.audit, parts.clock)
    consumer = _consumer(parts, acceptance, withdrawal, life)
    desk = _desk(parts, life, migrating)
    loops = [
        *worker.loops,
        *_maintenance(parts, acceptance, withdrawal, consumer),
        *life.loops,
        *desk.loops,
        *migrating.loops,
    ]
    problems = _readiness(parts.model, loops)
    limits = settings.limits
    api = EnrolmentApi(
        acceptance=acceptance,
        checks=checks,
        withdrawal=withdrawal,
        ledger=parts.stores.ledger,
        facts=life.custody,
        audit=parts.peers.audit,
        admission=Admission(limits.uploads_at_once, limits.upload_bytes_at_once),
        verifier=TokenVerifier(settings.tokens),
        batch_images=limits.batch_images,
    )
    app = create_app(
        "Likeness ingest",
        parts.metrics,
        problems,
        max_body_bytes=limits.batch_bytes + _FORM_BYTES,
        about=scanner_in_words(settings.scanner),
    )
    reporter = rate_reporter(AuditRecorder(parts.peers.audit_client, "ingest", parts.clock))
    limit_rates(app, parts.settings.rate_limits, parts.metrics, reporter)
    show_watchlists(app, settings.metrics_token_path)
    app.include_router(api.router())
    for router in (*life.routers, *desk.routers, migrating.router):
        app.include_router(router)

    def close() -> None:
        desk.close()
        parts.close()

    return IngestService(
        app=app,
        grpc=_grpc_server(parts, migrating),
        loops=loops,
        worker=worker,
        consumer=consumer,
        problems=problems,
        close=close,
    )


def _worker(parts: _Parts, migrating: Migrating) -> EnrolmentWorker:
    ledger, peers = parts.stores.ledger, parts.peers
    return EnrolmentWorker(
        ledger=ledger,
        analyst=ImageAnalyst(
            ledger=ledger,
            images=parts.images,
            analyser=parts.embed,
            quality_settings=parts.settings.quality,
            now_ms=parts.now_ms,
        ),
        settlement=SettleEnrolments(
            ledger, peers.gallery, peers.audit, parts.metrics, parts.now_ms, other_model=migrating.embedding
        ),
        probe_embed=parts.model.refresh,
        clock=parts.clock,
        settings=parts.settings.worker,
    )


def _migrating(parts: _Parts) -> Migrating:
    return build_migrating(
        MigratingParts(
            settings=parts.settings,
            engine=parts.stores.engine,
            committer=parts.stores.committer,
            migrations=parts.stores.migrations,
            references=parts.stores.references,
            keys=parts.keys,
            images=parts.images,
            embeds=parts.peers.embeds,
            model=parts.model,
            gallery=parts.peers.gallery,
            served=parts.peers.served,
            audit=parts.peers.audit,
            acts=parts.acts,
            clock=parts.clock,
            metrics=parts.metrics,
            now_ms=parts.now_ms,
        )
    )


def _life(parts: _Parts, migrating: Migrating) -> Life:
    upkeep, has_second = parts.peers.upkeep, parts.peers.embeds.has_second
    return build_life(
        LifeParts(
            settings=parts.settings,
            clock=parts.clock,
            engine=parts.stores.engine,
            committer=parts.stores.committer,
            ledger=parts.stores.ledger,
            references=migrating.references,
            model=parts.model,
            upkeep=OwnGallery(upkeep, parts.peers.served, parts.model) if has_second else upkeep,
            gallery=parts.peers.gallery,
            images=parts.images,
            sweepable=open_sweepable(parts.settings.images, parts.keys),
            holds=parts.stores.holds,
            acts=parts.acts,
            metrics=parts.metrics,
            keys=parts.keys,
            log=parts.log,
            audit=parts.peers.audit,
            audit_client=parts.peers.audit_client,
            watchlists=lambda: parts.watchlists.current().ids,
        )
    )


def _desk(parts: _Parts, life: Life, migrating: Migrating) -> Desk:
    _embed, search, *_others = parts.peers.channels
    return build_desk(
        DeskParts(
            settings=parts.settings,
            engine=parts.stores.engine,
            committer=parts.stores.committer,
            keys=parts.keys,
            images=parts.images,
            search=search,
            signer=life.signer,
            audit=parts.peers.audit,
            audit_client=parts.peers.audit_client,
            acts=parts.acts,
            settle_migration=migrating.settle,
            model_id=parts.model.model_id,
            watchlists=parts.watchlists,
            pending=parts.backlog.pending,
            clock=parts.clock,
            metrics=parts.metrics,
        )
    )


def _acceptance(parts: _Parts, checks: LawfulnessChecks, worker: EnrolmentWorker, life: Life) -> AcceptEnrolments:
    limits, backlog = parts.settings.limits, parts.backlog
    return AcceptEnrolments(
        ledger=parts.stores.ledger,
        images=parts.images,
        audit=parts.peers.audit,
        checks=checks,
        model=parts.model,
        backlog=Backlog(backlog.pending, limits.pending_enrolments, backlog.events, limits.outbox_events),
        clock=parts.clock,
        pool=parts.pool,
        wake_worker=worker.wake,
        barring=life.barring,
        holds=parts.stores.holds,
    )


def _maintenance(
    parts: _Parts, acceptance: AcceptEnrolments, withdrawal: WithdrawReference, consumer: ConsumeLoop | None
) -> list[Loop]:
    ledger, audit, feed = parts.stores.ledger, parts.peers.audit, parts.settings.custody_feed
    loops = [
        Loop("relay", OutboxRelay(parts.stores.outbox, parts.log, parts.metrics).step),
        Loop("withdrawals", lambda: 0.0 if withdrawal.finish_all() else _WITHDRAWAL_REST_S),
        Loop("intents", CloseAbandonedIntents(ledger, audit, parts.clock, acceptance.is_under_way).step),
        Loop("backlog", parts.backlog.step),
        Loop("model", ModelWatch(parts.model).step),
    ]
    if consumer is not None:
        loops.append(Loop("custody-feed", consumer.step))
        loops.append(Loop("lag", LagWatch(parts.log, custody_topics(parts.settings), feed.group, parts.metrics).step))
    return loops


def _grpc_server(parts: _Parts, migrating: Migrating) -> GrpcServer:
    settings, stores, peers = parts.settings, parts.stores, parts.peers
    synthetic = FillSynthetic(
        ledger=stores.synthetic,
        gallery=peers.gallery,
        analyser=parts.embed,
        audit=peers.audit,
        watchlists=parts.watchlists,
        now_ms=parts.now_ms,
        is_allowed=settings.allow_synthetic,
    )
    consent = SharingConsent(parts.watchlists, peers.agreements, parts.clock)
    subjects, verifier = SqlSubjectReferences(stores.engine), TokenVerifier(settings.tokens)
    references = ReferencesServicer(subjects, parts.images, verifier, consent)
    servicer = LedgerServicer(stores.ledger, migrating.references, synthetic)
    return GrpcServer(
        settings.grpc_host,
        settings.grpc_port,
        [SERVICE_NAME, REFERENCES, MIGRATIONS_SERVICE],
        _servicers(servicer, references, migrating.servicer),
        tls=settings.tls,
    )


def _servicers(
    ledger: LedgerServicer, references: ReferencesServicer, migrations: MigrationsServicer
) -> Callable[[grpc.Server], None]:
    def register(server: grpc.Server) -> None:
        ingest_pb2_grpc.add_LedgerServicer_to_server(ledger, server)
        reference_pb2_grpc.add_ReferencesServicer_to_server(references, server)
        migration_pb2_grpc.add_MigrationsServicer_to_server(migrations, server)

    return register


def _consumer(
    parts: _Parts, acceptance: AcceptEnrolments, withdrawal: WithdrawReference, life: Life
) -> ConsumeLoop | None:
    feed = parts.settings.custody_feed
    if not feed.is_enabled:
        return None

    def count(topic: str, reason: str) -> None:
        parts.metrics.ingest_dead_letters_total.labels(topic, reason).inc()

    handler = CustodyFeed(
        acceptance=acceptance,
        ledger=parts.stores.ledger,
        custody=life.custody,
        turns=owner_turns(parts.stores.engine),
        withdrawal=withdrawal,
        erasing=life.erasing,
        register=life.register,
        watchlists=lambda: parts.watchlists.current().ids,
        clock=parts.clock,
        owners=feed.owners,
        quarantine_days=parts.settings.life.quarantine_days,
        on_erased=life.on_erased,
    )
    return ConsumeLoop(parts.log, custody_topics(parts.settings), feed.group, handler.handle, on_dead_letter=count)


def _readiness(model: CurrentModel, loops: Sequence[Loop]) -> Callable[[], Mapping[str, str]]:
    """Ready to accept when the model is known, the ledger answers and every thread lives.

    What only delays the working off, a gallery or an event log that is away, does not count: enrolments queue.
    """

    [ledger_watch] = (loop for loop in loops if loop.name == "backlog")

    def problems() -> Mapping[str, str]:
        found = {loop.name: "not running" for loop in loops if not loop.is_alive}
        if ledger_watch.problem:
            found["ledger"] = ledger_watch.problem
        if not model.is_known:
            found["model"] = "embed has not said which model it runs"
        return found

    return problems
