"""The composition root of review."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, FastAPI

from services.review.adapters.http_films import HttpFilmReader
from services.review.adapters.sql_released_cases import SqlReleasedCases
from services.review.adapters.sql_review_store import SqlReviewStore
from services.review.adapters.sql_session_store import SqlSessionStore
from services.review.casework.desk import Desk, Peers
from services.review.casework_api import create_casework_router
from services.review.console.app import create_console
from services.review.console.guard import NEW_REQUEST_PATH
from services.review.console.oidc import Oidc
from services.review.documents.typesetting import Typesetter
from services.review.error_rates import ErrorRates
from services.review.grpc_server import SERVICE_NAME
from services.review.http_api import API_DESCRIPTION, REQUESTS_PATH, create_request_router
from services.review.releases import ReleaseServicer
from services.review.settings import ReviewSettings
from services.review.supervision_api import create_supervision_router
from services.review.unsolved.sql_store import SqlKeptStore
from services.review.unsolved.wiring import wire_unsolved
from services.review.workflow import WORKFLOW
from services.rpc.auditing import AuditRecorder, rate_reporter
from services.rpc.casework import IdentificationClient, PictureClient, ReferenceClient
from services.rpc.clients import AgreementClient, AuditClient, EmbedClient, open_peer
from services.rpc.probes import ProbeClient
from services.rpc.server import GrpcServer
from services.rpc.v1 import review_pb2_grpc
from services.shared.adapters.opening import open_originals, scanner_in_words
from services.shared.clock import Clock, SystemClock
from services.shared.database import create_engine, migrate
from services.shared.http import create_app, limit_rates
from services.shared.periodic import Periodic, stop_all
from services.shared.settings import MAX_IMAGE_BYTES
from services.shared.telemetry import Metrics
from services.shared.tokens import TokenVerifier
from services.shared.watchlists import WatchlistFile

MIGRATIONS = Path(__file__).parent / "migrations"
SWEEP_EVERY_S = 5.0
MAX_REQUEST_BYTES = 4 * MAX_IMAGE_BYTES  # several pictures in one request


@dataclass(frozen=True)
class ReviewService:
    """A wired service, not started yet."""

    app: FastAPI
    grpc: GrpcServer
    desk: Desk
    periodics: Sequence[Periodic]
    closers: Sequence[Callable[[], None]]

    def start(self) -> None:
        """Serve gRPC and close what a crash left open. Ready at once: a peer that is away is told when it is needed."""
        self.grpc.start()
        for periodic in self.periodics:
            periodic.start()
        self.grpc.set_serving(True)

    def stop(self) -> None:
        self.grpc.stop()
        stop_all(self.periodics)
        for close in self.closers:
            close()


def build(settings: ReviewSettings, metrics: Metrics, clock: Clock | None = None) -> ReviewService:
    """Raises ConfigurationError, DependencyUnavailable (a store cannot be opened)."""
    clock = clock or SystemClock()
    watchlists = WatchlistFile(settings.watchlists_path)
    watchlists.current()  # a file that is wrong stops the start, not the first request
    engine = create_engine(settings.database)
    migrate(engine, MIGRATIONS)
    embed, search, ingest, audit = (open_peer(settings, name) for name in ("embed", "search", "ingest", "audit"))
    recorder = AuditRecorder(AuditClient(audit), "review", clock)
    films = HttpFilmReader(settings.films.search_url)
    store, images = SqlReviewStore(engine), open_originals(settings.images, settings.scanner, metrics, clock)
    desk = Desk.make(
        store=store,
        images=images,
        peers=Peers(
            audit=recorder,
            searcher=IdentificationClient(search),
            references=ReferenceClient(ingest),
            analyser=EmbedClient(embed),
            renderer=PictureClient(embed),
            agreements=AgreementClient(search),
            films=films,
            copies=ProbeClient(search) if settings.tls.is_on else None,
        ),
        watchlists=watchlists,
        setter=Typesetter(),
        clock=clock,
        min_view_s=settings.min_view_s,
        rates=ErrorRates.read(settings.evaluation_path) if settings.evaluation_path else ErrorRates.none(),
        metrics=metrics,
        film_settings=settings.films,
        kept_look=SqlKeptStore(engine).find,
    )
    verifier, oidc = TokenVerifier(settings.tokens), settings.console.oidc
    provider = Oidc(oidc, verifier, settings.tokens.issuer) if oidc.is_used else None
    console = create_console(
        desk,
        verifier,
        clock,
        watchlists,
        settings.console,
        films=settings.films,
        session_store=SqlSessionStore(engine),
        oidc=provider,
    )
    servicer = ReleaseServicer(WORKFLOW, SqlReleasedCases(engine))
    grpc = GrpcServer(
        settings.grpc_host,
        settings.grpc_port,
        [SERVICE_NAME],
        lambda server: review_pb2_grpc.add_ReviewServicer_to_server(servicer, server),
        tls=settings.tls,
    )
    app = _app(desk, TokenVerifier(settings.tokens), metrics, console, settings)
    limit_rates(app, settings.rate_limits, metrics, rate_reporter(recorder))
    unsolved = wire_unsolved(
        settings.unsolved,
        engine=engine,
        store=store,
        desk=desk,
        images=images,
        search=search,
        audit=recorder,
        clock=clock,
        verifier=verifier,
        has_certificate=settings.tls.is_on,
    )
    app.include_router(unsolved.router)
    return ReviewService(
        app=app,
        grpc=grpc,
        desk=desk,
        periodics=[Periodic("sweep", desk.trail.sweep, SWEEP_EVERY_S), *unsolved.periodics],
        closers=[
            engine.dispose,
            films.close,
            *([provider.close] if provider is not None else []),
            *(channel.close for channel in (embed, search, ingest, audit)),
        ],
    )


def _app(
    desk: Desk, verifier: TokenVerifier, metrics: Metrics, console: APIRouter, settings: ReviewSettings
) -> FastAPI:
    films = settings.films
    app = create_app(
        "Likeness review",
        metrics,
        readiness=dict,
        max_body_bytes=MAX_REQUEST_BYTES,
        larger_bodies=dict.fromkeys((REQUESTS_PATH, NEW_REQUEST_PATH), films.max_bytes + MAX_REQUEST_BYTES),
        description=API_DESCRIPTION,
        about=scanner_in_words(settings.scanner),
    )
    app.include_router(create_request_router(desk, verifier, films))
    app.include_router(create_casework_router(desk, verifier))
    app.include_router(create_supervision_router(desk, verifier))
    app.include_router(console)
    return app
