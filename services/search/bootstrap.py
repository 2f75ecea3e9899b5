"""The composition root of search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
from fastapi import FastAPI

from services.rpc.auditing import AuditRecorder, rate_reporter
from services.rpc.casework import PictureClient
from services.rpc.clients import AuditClient, EmbedClient, LedgerClient, open_peer
from services.rpc.server import GrpcServer
from services.rpc.v1 import agreements_pb2_grpc, migration_pb2_grpc, search_pb2_grpc, unsolved_pb2_grpc
from services.search.acceptance import Acceptance
from services.search.adapters.sql_approvals import SqlApprovals
from services.search.adapters.sql_search_store import SqlSearchStore
from services.search.agreements.grpc_server import SERVICE_NAME as AGREEMENTS
from services.search.agreements.grpc_server import AgreementsServicer
from services.search.closing import Closing
from services.search.disclosure.access import DisclosureAccess, DisclosureTrail
from services.search.disclosure.api import create_disclosure_router
from services.search.disclosure.approvals import ApproveDisclosure
from services.search.disclosure.bundle import DiscloseSearch
from services.search.disclosure.replay import ReplaySearch
from services.search.film.http_api import FILMS_PATH, MAX_FORM_BYTES
from services.search.film.wiring import wire_films
from services.search.gallery_keeper import GalleryKeeper
from services.search.governing import govern
from services.search.grpc_server import SERVICE_NAME, GalleryServicer
from services.search.http_api import API_DESCRIPTION, Slots, create_router
from services.search.identification_server import SERVICE_NAME as IDENTIFICATION
from services.search.identification_server import IdentificationServicer
from services.search.identify import Identify
from services.search.identifying import IdentifyFor
from services.search.ledger_counts import LedgerCounts
from services.search.matching import Matching
from services.search.near_duplicates import NearDuplicates
from services.search.neighbours.finding import FindNeighbours
from services.search.neighbours.points import FlagPointsFile
from services.search.neighbours.returns import SqlReturns
from services.search.neighbours.servicer import NeighbourServicer
from services.search.operating_points import OperatingPoints
from services.search.partners.gateway import PartnerGateway
from services.search.partners.wiring import wire_partners
from services.search.ports import GalleryStore
from services.search.serving.grpc_server import SERVICE_NAME as MODELS
from services.search.serving.grpc_server import ModelsServicer
from services.search.serving.wiring import wire_serving
from services.search.settings import GallerySettings, SearchSettings
from services.search.trail import SearchTrail
from services.search.unsolved.servicer import SERVICE_NAME as UNSOLVED
from services.search.unsolved.servicer import UnsolvedServicer
from services.search.unsolved.wiring import wire_unsolved
from services.search.view import ViewSearch
from services.shared.adapters.opening import open_image_store
from services.shared.clock import Clock, SystemClock
from services.shared.database import create_engine, migrate
from services.shared.http import create_app, limit_rates
from services.shared.periodic import Periodic
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
        for periodic in self.periodics:
            periodic.stop()
        for close in self.closers:
            close()


def build(settings: SearchSettings, metrics: Metrics, clock: Clock | None = None) -> SearchService:
    """Raises ConfigurationError, DependencyUnavailable (a store cannot be opened)."""
    clock = clock or SystemClock()
    engine = create_engine(settings.database)
    migrate(engine, MIGRATIONS)
    store = SqlSearchStore(engine)
    channels = {name: open_peer(settings, name) for name in ("embed", "ingest", "audit")}
    ledger = LedgerClient(channels["ingest"])
    audit = AuditClient(channels["audit"])
    recorder = AuditRecorder(audit, "search", clock)
    trail = SearchTrail(recorder)
    serving = wire_serving(settings, channels, engine, _gallery_store, metrics, clock)
    embed, gallery = serving.embed, serving.gallery
    counts = LedgerCounts(ledger, serving.lost)
    closing = Closing(store, trail, clock, settings.orphan_age_s)
    verifier, report = TokenVerifier(settings.tokens), rate_reporter(recorder)
    slots = Slots(settings.max_concurrent_searches, RateLimits(settings.search_rate_limits, metrics, report))
    governance = govern(settings, engine, recorder, verifier, clock)
    points = OperatingPoints(settings.operating_points_path)
    acceptance = Acceptance(governance.rules, points, gallery, clock, governance.records)
    # A search has at most two pieces of work beside its own thread: sealing the probe, recording the outcome.
    executor = ThreadPoolExecutor(2 * settings.max_concurrent_searches, thread_name_prefix="search")
    probes = open_image_store(settings.probes)
    make_identify = partial(
        Identify,
        acceptance=acceptance,
        embed=embed,
        store=store,
        probes=probes,
        closing=closing,
        counts=counts,
        near_duplicates=NearDuplicates(settings.near_duplicates, clock, metrics),
        clock=clock,
        metrics=metrics,
        executor=executor,
        shadow=serving.shadow,
    )
    identify_for = IdentifyFor(make_identify, recorder, Matching(gallery, acceptance, clock))
    identify = identify_for({})
    app = _app(settings, metrics, gallery, report)
    app.include_router(create_router(identify, ViewSearch(store, trail, closing), verifier, slots))
    access, disclosing = DisclosureAccess(store, closing), DisclosureTrail(recorder, governance.acts)
    replay = _replay(access, acceptance, embed, gallery, ledger, probes, disclosing, clock)
    approvals = SqlApprovals(engine)
    approve = ApproveDisclosure(access, approvals, disclosing, clock)
    disclose = DiscloseSearch(access, approvals, probes, audit, disclosing, clock)
    films = wire_films(
        settings.films,
        engine=engine,
        embed=channels["embed"],
        acceptance=acceptance,
        identify=identify,
        probes=probes,
        recorder=recorder,
        clock=clock,
        verifier=verifier,
        slots=slots,
        metrics=metrics,
    )
    partners = wire_partners(
        settings.partners,
        engine=engine,
        identify_for=identify_for,
        renderer=PictureClient(channels["embed"]),
        recorder=recorder,
        clock=clock,
        verifier=verifier,
        slots=slots,
        limits=settings.search_rate_limits,
        metrics=metrics,
    )
    disclosure = create_disclosure_router(approve, disclose, replay, verifier, slots)
    for router in (disclosure, *governance.routers, films.router, partners.router):
        app.include_router(router)
    servicers = _servicers(
        NeighbourServicer(
            gallery, FindNeighbours(gallery, FlagPointsFile(settings.flag_points_path), clock), SqlReturns(engine)
        ),
        IdentificationServicer(identify, verifier, slots),
        governance.agreements,
        serving.servicer,
        wire_unsolved(
            settings.tokens,
            identify_for=identify_for,
            acceptance=acceptance,
            gallery=gallery,
            ledger=ledger,
            clock=clock,
            slots=slots,
        ),
    )
    names = [SERVICE_NAME, IDENTIFICATION, AGREEMENTS, MODELS, UNSOLVED]
    grpc_server = GrpcServer(settings.grpc_host, settings.grpc_port, names, servicers, tls=settings.tls)

    def tend() -> None:
        gallery.tend()
        grpc_server.set_serving(not gallery.waiting_for())

    periodics = [
        Periodic("gallery", tend, TEND_EVERY_S),
        Periodic("ledger-counts", counts.refresh, COUNT_EVERY_S),
        *_tidying(closing),
        Periodic("open-acts", governance.sweep, SWEEP_EVERY_S),
        *films.periodics,
        *partners.periodics,
        *serving.periodics,
    ]
    connections = [gallery.close, engine.dispose, *(channel.close for channel in channels.values())]
    closers = [*partners.closers, lambda: executor.shutdown(wait=True), closing.flush, *connections, *serving.closers]
    return SearchService(app, grpc_server, gallery, periodics, closers, partners.gateway)


def _tidying(closing: Closing) -> tuple[Periodic, ...]:
    return Periodic("flush", closing.flush, FLUSH_EVERY_S), Periodic("sweep", closing.sweep, SWEEP_EVERY_S)


def _replay(  # noqa: PLR0917 - what the composition root has made
    access: DisclosureAccess,
    acceptance: Acceptance,
    embed: EmbedClient,
    gallery: GalleryKeeper,
    ledger: LedgerClient,
    probes: ImageStore,
    trail: DisclosureTrail,
    clock: Clock,
) -> ReplaySearch:
    return ReplaySearch(
        access=access,
        acceptance=acceptance,
        embed=embed,
        gallery=gallery,
        ledger=ledger,
        probes=probes,
        trail=trail,
        clock=clock,
    )


def _app(settings: SearchSettings, metrics: Metrics, gallery: GalleryKeeper, report: Report) -> FastAPI:
    app = create_app(
        "Likeness search",
        metrics,
        gallery.waiting_for,
        larger_bodies={FILMS_PATH: settings.films.max_bytes + MAX_FORM_BYTES},
        description=API_DESCRIPTION,
    )
    limit_rates(app, settings.rate_limits, metrics, report)
    return app


def _servicers(
    gallery: GalleryServicer,
    identification: IdentificationServicer,
    agreements: AgreementsServicer,
    models: ModelsServicer,
    unsolved: UnsolvedServicer,
) -> Callable[[grpc.Server], None]:
    def register(server: grpc.Server) -> None:
        agreements_pb2_grpc.add_AgreementsServicer_to_server(agreements, server)
        migration_pb2_grpc.add_ModelsServicer_to_server(models, server)
        search_pb2_grpc.add_GalleryServicer_to_server(gallery, server)
        search_pb2_grpc.add_IdentificationServicer_to_server(identification, server)
        unsolved_pb2_grpc.add_UnsolvedServicer_to_server(unsolved, server)

    return register


def _gallery_store(settings: GallerySettings) -> GalleryStore:
    if settings.kind == "exact":
        # faiss tells on every start which of its builds it does not find.
        logging.getLogger("faiss").setLevel(logging.WARNING)
        from services.search.adapters.exact_gallery_store import ExactGalleryStore  # noqa: PLC0415 - loads faiss

        return ExactGalleryStore()
    from services.search.adapters.milvus_gallery_store import MilvusGalleryStore  # noqa: PLC0415 - an extra

    return MilvusGalleryStore(settings)
