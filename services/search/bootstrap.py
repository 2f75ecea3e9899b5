"""The composition root of search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import sqlalchemy as sa
from fastapi import APIRouter, FastAPI

from services.rpc.auditing import AuditRecorder, rate_reporter
from services.rpc.casework import PictureClient
from services.rpc.clients import AuditClient, LedgerClient, open_peer
from services.rpc.open_acts import OpenAct, Settled
from services.rpc.server import GrpcServer
from services.rpc.v1 import (
    agreements_pb2_grpc,
    migration_pb2_grpc,
    probes_pb2_grpc,
    search_pb2_grpc,
    unsolved_pb2_grpc,
)
from services.search.adapters.sql_approvals import SqlApprovals
from services.search.adapters.sql_search_store import SqlSearchStore
from services.search.agreements.grpc_server import SERVICE_NAME as AGREEMENTS
from services.search.disclosure.access import DisclosureAccess, DisclosureTrail
from services.search.disclosure.api import create_disclosure_router
from services.search.disclosure.approvals import ApproveDisclosure
from services.search.disclosure.bundle import DiscloseSearch
from services.search.disclosure.replay import ReplaySearch
from services.search.film.http_api import FILMS_PATH, MAX_FORM_BYTES
from services.search.film.wiring import FilmParts, wire_films
from services.search.grpc_server import SERVICE_NAME
from services.search.http_api import API_DESCRIPTION, Slots, create_router
from services.search.identification.acceptance import Acceptance
from services.search.identification.closing import Closing
from services.search.identification.identify import Identify
from services.search.identification.identifying import IdentifyFor
from services.search.identification.matching import Matching
from services.search.identification.near_duplicates import NearDuplicates
from services.search.identification.operating_points import OperatingPoints
from services.search.identification.servicer import SERVICE_NAME as IDENTIFICATION
from services.search.identification.servicer import IdentificationServicer
from services.search.identification.standing import StandingPermission
from services.search.identification.trail import SearchTrail
from services.search.identification.view import ViewSearch
from services.search.neighbours.finding import FindNeighbours
from services.search.neighbours.points import FlagPointsFile
from services.search.neighbours.returns import SqlReturns
from services.search.neighbours.servicer import NeighbourServicer
from services.search.partners.gateway import PartnerGateway
from services.search.partners.wiring import PartnerParts, wire_partners
from services.search.policy.governing import Governance, govern
from services.search.ports import GalleryStore
from services.search.probes.erasing import ACTIVITY as PROBE_ERASURE
from services.search.probes.erasing import EraseProbes
from services.search.probes.servicer import SERVICE_NAME as PROBES
from services.search.probes.servicer import ProbesServicer
from services.search.probes.sql_sealed import SqlSealedProbes
from services.search.serving.grpc_server import SERVICE_NAME as MODELS
from services.search.serving.wiring import Serving, wire_serving
from services.search.settings import GallerySettings, SearchSettings
from services.search.unsolved.servicer import SERVICE_NAME as UNSOLVED
from services.search.unsolved.servicer import UnsolvedServicer
from services.search.unsolved.wiring import wire_unsolved
from services.search.upkeep.compacting import Compacting, compacting
from services.search.upkeep.keeper import GalleryKeeper
from services.search.upkeep.ledger_counts import LedgerCounts
from services.shared.adapters.opening import open_originals, scanner_in_words
from services.shared.clock import Clock, SystemClock
from services.shared.database import create_engine, migrate
from services.shared.http import create_app, limit_rates, show_watchlists
from services.shared.periodic import Periodic, stop_all
from services.shared.ports.image_store import ImageStore
from services.shared.rate_limits import RateLimits, Report
from services.shared.telemetry import Metrics
from services.shared.tokens import TokenVerifier

MIGRATIONS = Path(__file__).parent / "migrations"

TEND_EVERY_S = 0.5  # the gallery is ready within a blink of its peers
FLUSH_EVERY_S = 0.25
SWEEP_EVERY_S = 5.0
COUNT_EVERY_S = 5.0


@dataclass(frozen=True)
class SearchService:
    """A wired service, not started yet."""

    app: FastAPI
    grpc: GrpcServer
    gallery: GalleryKeeper
    periodics: Sequence[Periodic]
    closers: Sequence[Callable[[], None]]
    gateway: PartnerGateway | None = None

    def start(self) -> None:
        """Serve gRPC and begin to load the gallery; health says SERVING once it is ready."""
        self.grpc.start()
        if self.gateway is not None:
            self.gateway.start()
        for periodic in self.periodics:
            periodic.start()

    def stop(self) -> None:
        if self.gateway is not None:
            self.gateway.stop()
        self.grpc.stop()
        stop_all(self.periodics)
        for close in self.closers:
            close()


@dataclass(frozen=True)
class _Core:
    """What every part of search is made from."""

    settings: SearchSettings
    metrics: Metrics
    clock: Clock
    engine: sa.Engine
    channels: Mapping[str, grpc.Channel]
    ledger: LedgerClient
    audit: AuditClient
    recorder: AuditRecorder
    serving: Serving
    closing: Closing
    counts: LedgerCounts
    verifier: TokenVerifier
    report: Report
    slots: Slots
    governance: Governance
    acceptance: Acceptance
    probes: ImageStore
    executor: ThreadPoolExecutor
    store: SqlSearchStore
    trail: SearchTrail

    @property
    def standing(self) -> StandingPermission:
        return StandingPermission(self.governance.rules, self.clock)

    @property
    def gallery(self) -> GalleryKeeper:
        return self.serving.gallery


def build(settings: SearchSettings, metrics: Metrics, clock: Clock | None = None) -> SearchService:
    """Raises ConfigurationError, DependencyUnavailable (a store cannot be opened)."""
    core = _core(settings, metrics, clock or SystemClock())
    gallery, serving, governance = core.gallery, core.serving, core.governance
    identify_for = _identify_for(core)
    identify = identify_for({})
    films, partners = _films(core, identify), _partners(core, identify_for)
    erase = EraseProbes(SqlSealedProbes(core.engine), core.probes, governance.acts, core.clock)
    app = _app(settings, metrics, gallery, core.report)
    view = ViewSearch(core.store, core.trail, core.closing, core.standing)
    searches = create_router(identify, view, core.verifier, core.slots)
    for router in (searches, _disclosure(core), *governance.routers, films.router, partners.router):
        app.include_router(router)
    names = [SERVICE_NAME, IDENTIFICATION, AGREEMENTS, MODELS, PROBES, UNSOLVED]
    tidy = compacting(settings.gallery, core.clock)
    identification = IdentificationServicer(identify, core.verifier, core.slots, partners.asked)
    servicers = _registering(
        (search_pb2_grpc.add_GalleryServicer_to_server, _neighbours(core, tidy)),
        (search_pb2_grpc.add_IdentificationServicer_to_server, identification),
        (agreements_pb2_grpc.add_AgreementsServicer_to_server, governance.agreements),
        (migration_pb2_grpc.add_ModelsServicer_to_server, serving.servicer),
        (unsolved_pb2_grpc.add_UnsolvedServicer_to_server, _unsolved(core, identify_for)),
        (probes_pb2_grpc.add_ProbesServicer_to_server, ProbesServicer(erase)),
    )
    grpc_server = GrpcServer(settings.grpc_host, settings.grpc_port, names, servicers, tls=settings.tls)

    def tend() -> None:
        gallery.tend()
        grpc_server.set_serving(not gallery.waiting_for())

    def settling(act: OpenAct) -> Settled:
        return erase.settle(act) if act.activity == PROBE_ERASURE else governance.settling(act)

    periodics = [
        Periodic("gallery", tend, TEND_EVERY_S),
        Periodic("ledger-counts", core.counts.refresh, COUNT_EVERY_S),
        *_tidying(core.closing),
        Periodic("open-acts", partial(governance.acts.sweep, settling), SWEEP_EVERY_S),
        *films.periodics,
        *partners.periodics,
        *serving.periodics,
        *tidy.periodics,
    ]
    closers = [
        *partners.closers,
        lambda: core.executor.shutdown(wait=True),
        core.closing.flush,
        gallery.close,
        core.engine.dispose,
        *(channel.close for channel in core.channels.values()),
        *serving.closers,
        *tidy.closers,
    ]
    return SearchService(app, grpc_server, gallery, periodics, closers, partners.gateway)


def _core(settings: SearchSettings, metrics: Metrics, clock: Clock) -> _Core:
    engine = create_engine(settings.database)
    migrate(engine, MIGRATIONS)
    channels = {name: open_peer(settings, name) for name in ("embed", "ingest", "audit")}
    ledger, audit = LedgerClient(channels["ingest"]), AuditClient(channels["audit"])
    recorder = AuditRecorder(audit, "search", clock)
    store, trail = SqlSearchStore(engine), SearchTrail(recorder)
    serving = wire_serving(settings, channels, engine, _gallery_store, metrics, clock)
    verifier, report = TokenVerifier(settings.tokens), rate_reporter(recorder)
    governance = govern(settings, engine, recorder, verifier, clock)
    points = OperatingPoints(settings.operating_points_path)
    return _Core(
        settings=settings,
        metrics=metrics,
        clock=clock,
        engine=engine,
        channels=channels,
        ledger=ledger,
        audit=audit,
        recorder=recorder,
        serving=serving,
        closing=Closing(store, trail, clock, settings.orphan_age_s),
        counts=LedgerCounts(ledger, serving.lost),
        verifier=verifier,
        report=report,
        slots=Slots(settings.max_concurrent_searches, RateLimits(settings.search_rate_limits, metrics, report)),
        governance=governance,
        acceptance=Acceptance(governance.rules, points, serving.gallery, clock, governance.records),
        probes=open_originals(settings.probes, settings.scanner, metrics, clock),
        # A search has at most two pieces of work beside its own thread: sealing the probe, recording the outcome.
        executor=ThreadPoolExecutor(2 * settings.max_concurrent_searches, thread_name_prefix="search"),
        store=store,
        trail=trail,
    )


def _identify_for(core: _Core) -> IdentifyFor:
    make_identify = partial(
        Identify,
        acceptance=core.acceptance,
        embed=core.serving.embed,
        store=core.store,
        probes=core.probes,
        closing=core.closing,
        counts=core.counts,
        near_duplicates=NearDuplicates(core.settings.near_duplicates, core.clock, core.metrics),
        clock=core.clock,
        metrics=core.metrics,
        executor=core.executor,
        standing=core.standing,
        shadow=core.serving.shadow,
    )
    return IdentifyFor(make_identify, core.recorder, Matching(core.gallery, core.acceptance, core.clock))


def _disclosure(core: _Core) -> APIRouter:
    access = DisclosureAccess(core.store, core.closing)
    disclosing, approvals = DisclosureTrail(core.recorder, core.governance.acts), SqlApprovals(core.engine)
    replay = ReplaySearch(
        access=access,
        acceptance=core.acceptance,
        embed=core.serving.embed,
        gallery=core.gallery,
        ledger=core.ledger,
        probes=core.probes,
        trail=disclosing,
        clock=core.clock,
    )
    approve = ApproveDisclosure(access, approvals, disclosing, core.clock)
    disclose = DiscloseSearch(access, approvals, core.probes, core.audit, disclosing, core.clock)
    return create_disclosure_router(approve, disclose, replay, core.verifier, core.slots)


def _films(core: _Core, identify: Identify) -> FilmParts:
    return wire_films(
        core.settings.films,
        engine=core.engine,
        embed=core.channels["embed"],
        acceptance=core.acceptance,
        identify=identify,
        probes=core.probes,
        recorder=core.recorder,
        clock=core.clock,
        verifier=core.verifier,
        slots=core.slots,
        metrics=core.metrics,
    )


def _partners(core: _Core, identify_for: IdentifyFor) -> PartnerParts:
    return wire_partners(
        core.settings.partners,
        engine=core.engine,
        identify_for=identify_for,
        renderer=PictureClient(core.channels["embed"]),
        recorder=core.recorder,
        clock=core.clock,
        verifier=core.verifier,
        watchlists=core.governance.watchlists,
        slots=core.slots,
        limits=core.settings.search_rate_limits,
        metrics=core.metrics,
        standing=core.standing,
    )


def _unsolved(core: _Core, identify_for: IdentifyFor) -> UnsolvedServicer:
    return wire_unsolved(
        core.settings.tokens,
        identify_for=identify_for,
        acceptance=core.acceptance,
        gallery=core.gallery,
        ledger=core.ledger,
        clock=core.clock,
        slots=core.slots,
    )


def _neighbours(core: _Core, tidy: Compacting) -> NeighbourServicer:
    points = FlagPointsFile(core.settings.flag_points_path)
    finding = FindNeighbours(core.gallery, points, core.clock, core.closing.wait_for_none)
    return NeighbourServicer(core.gallery, finding, SqlReturns(core.engine), tidy.ask)


def _tidying(closing: Closing) -> tuple[Periodic, ...]:
    return Periodic("flush", closing.flush, FLUSH_EVERY_S), Periodic("sweep", closing.sweep, SWEEP_EVERY_S)


def _app(settings: SearchSettings, metrics: Metrics, gallery: GalleryKeeper, report: Report) -> FastAPI:
    app = create_app(
        "Likeness search",
        metrics,
        gallery.waiting_for,
        larger_bodies={FILMS_PATH: settings.films.max_bytes + MAX_FORM_BYTES},
        description=API_DESCRIPTION,
        about=scanner_in_words(settings.scanner),
    )
    limit_rates(app, settings.rate_limits, metrics, report)
    show_watchlists(app, settings.metrics_token_path)
    return app


def _registering(*servicers: tuple[Callable[[Any, grpc.Server], None], Any]) -> Callable[[grpc.Server], None]:
    """Each servicer with the generated function that adds it to a server."""

    def register(server: grpc.Server) -> None:
        for add, servicer in servicers:
            add(servicer, server)

    return register


def _gallery_store(settings: GallerySettings) -> GalleryStore:
    if settings.kind == "exact":
        # faiss tells on every start which of its builds it does not find.
        logging.getLogger("faiss").setLevel(logging.WARNING)
        from services.search.adapters.exact_gallery_store import ExactGalleryStore  # noqa: PLC0415 - loads faiss

        return ExactGalleryStore()
    from services.search.adapters.milvus_gallery_store import MilvusGalleryStore  # noqa: PLC0415 - an extra

    return MilvusGalleryStore(settings)
