"""What the composition root of search needs to serve films."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import sqlalchemy as sa
from fastapi import APIRouter

from services.rpc.auditing import AuditRecorder
from services.rpc.clients import FilmsClient
from services.search.film.erasing import EraseFilm, ListFilms
from services.search.film.http_api import create_film_router
from services.search.film.picks import SearchTracks
from services.search.film.retention_api import create_retention_router
from services.search.film.runner import FilmRunner
from services.search.film.settings import FilmsSettings
from services.search.film.sql_store import SqlFilmStore
from services.search.film.stills import ReadStill
from services.search.film.submit import SubmitFilm
from services.search.film.trail import FilmTrail
from services.search.film.view import CancelFilm, FilmAccess, ViewFilm
from services.search.http_api import Slots
from services.search.identification.acceptance import Acceptance
from services.search.identification.identify import Identify
from services.shared.clock import Clock
from services.shared.periodic import Periodic
from services.shared.ports.image_store import ImageStore
from services.shared.telemetry import Metrics
from services.shared.tokens import TokenVerifier

_LOOK_EVERY_S = 0.5
_SWEEP_EVERY_S = 10.0


class _Job(Periodic):
    """Ends its turn when it is stopped, instead of waiting for a film to its end."""

    def __init__(self, runner: FilmRunner) -> None:
        super().__init__("films", runner.run_one, _LOOK_EVERY_S)
        self._runner = runner

    def stop(self, timeout_s: float = 5.0) -> None:
        self._runner.stop()
        super().stop(timeout_s)


@dataclass(frozen=True, slots=True)
class FilmParts:
    """The router to include and the work to start."""

    router: APIRouter
    periodics: tuple[Periodic, ...]


def wire_films(
    settings: FilmsSettings,
    *,
    engine: sa.Engine,
    embed: grpc.Channel,
    acceptance: Acceptance,
    identify: Identify,
    probes: ImageStore,
    recorder: AuditRecorder,
    clock: Clock,
    verifier: TokenVerifier,
    slots: Slots,
    metrics: Metrics,
) -> FilmParts:
    if settings.spool_path is not None:
        settings.spool_path.mkdir(parents=True, exist_ok=True)
    store, trail, client = SqlFilmStore(engine), FilmTrail(recorder), FilmsClient(embed)
    access = FilmAccess(store, trail)
    submit = SubmitFilm(
        settings=settings,
        acceptance=acceptance,
        embed=client,
        store=store,
        probes=probes,
        trail=trail,
        clock=clock,
    )
    runner = FilmRunner(
        settings=settings, embed=client, store=store, probes=probes, trail=trail, clock=clock, metrics=metrics
    )
    router = create_film_router(
        submit,
        ViewFilm(access, store, trail),
        CancelFilm(access, store, trail, metrics),
        SearchTracks(access, store, identify, probes, clock),
        ReadStill(access, store, probes, trail),
        verifier=verifier,
        slots=slots,
        settings=settings,
    )
    erase, listing = EraseFilm(access, store, probes, trail, clock), ListFilms(store, clock)
    both = APIRouter()
    both.include_router(router)
    both.include_router(create_retention_router(erase, listing, verifier))
    return FilmParts(both, (_Job(runner), Periodic("film-sweep", runner.sweep, _SWEEP_EVERY_S)))
