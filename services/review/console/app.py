"""The console, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from pydantic import BaseModel, IPvAnyNetwork

from services.review.console import (
    compare_pages,
    custodian_pages,
    film_pages,
    oversight_pages,
    picture_pages,
    probe_pages,
    request_pages,
    result_pages,
    unit_pages,
)
from services.review.console.addresses import Addresses
from services.review.console.context import Console
from services.review.console.entry import Entrance, open_routes, signed_in_routes
from services.review.console.oidc import Oidc, OidcSettings
from services.review.console.oversight import Oversight, OversightSettings
from services.review.console.rendering import Pages
from services.review.console.session_store import SessionStore
from services.review.console.sessions import Sessions, SessionSettings
from services.review.console.static_files import StaticFiles
from services.review.uploads import FilmSettings
from services.shared.clock import Clock
from services.shared.tokens import TokenVerifier
from services.shared.watchlists import WatchlistFile

if TYPE_CHECKING:
    from services.review.casework.desk import Desk


class ConsoleSettings(BaseModel):
    """Settings of the operator's console."""

    sessions: SessionSettings = SessionSettings()
    oidc: OidcSettings = OidcSettings()
    # Signing in by pasting a token: for trying the platform out. `likeness up` switches it on.
    token_sign_in: bool = False
    # Gateways before the console, by address: the address that bad sign-ins are counted by, and that people see of
    # their sessions, is then the one that they write into X-Forwarded-For. Without them a gateway's own.
    trusted_gateways: tuple[IPvAnyNetwork, ...] = ()
    oversight: OversightSettings = OversightSettings()


def _entrance(settings: ConsoleSettings, oidc: Oidc | None) -> Entrance:
    return Entrance(settings.sessions, settings.token_sign_in, oidc, Addresses(settings.trusted_gateways))


def create_console(
    desk: Desk,
    verifier: TokenVerifier,
    clock: Clock,
    watchlists: WatchlistFile,
    settings: ConsoleSettings,
    *,
    films: FilmSettings,
    session_store: SessionStore,
    oidc: Oidc | None = None,
) -> APIRouter:
    """Every route of the console, for the application of review."""
    static = StaticFiles()
    sessions = Sessions(
        verifier.verify, clock, settings.sessions, session_store, renew=oidc.renew if oidc is not None else None
    )
    console = Console(desk, Pages(static.path), sessions, clock, watchlists, films)
    router = APIRouter(include_in_schema=False)
    router.include_router(open_routes(console, _entrance(settings, oidc), static))
    router.include_router(signed_in_routes(console, oidc))
    # Before the pages of one request, whose addresses take any name.
    oversight = Oversight(settings.oversight, films.search_url)
    router.include_router(oversight_pages.routes(console, oversight))
    router.include_router(custodian_pages.routes(console, oversight))
    for pages in (request_pages, film_pages, probe_pages, compare_pages, picture_pages, result_pages, unit_pages):
        router.include_router(pages.routes(console))
    return router
