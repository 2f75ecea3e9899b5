"""What the composition root of search needs to ask partners and to answer them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn

import sqlalchemy as sa
from fastapi import APIRouter

from services.rpc.auditing import AuditRecorder
from services.search.http_api import Slots
from services.search.identification.standing import StandingPermission
from services.search.partners.answering import AnswerPartner
from services.search.partners.asking import SearchConsortium
from services.search.partners.config import MAX_PARTNERS, PartnerFile
from services.search.partners.gateway import PartnerGateway, create_gateway
from services.search.partners.http_api import create_consortium_router
from services.search.partners.http_link import MAX_AT_ONCE, HttpPartnerLink
from services.search.partners.offering import OfferPartners
from services.search.partners.picture import Renderer
from services.search.partners.ports import Identification, IdentificationFor
from services.search.partners.settings import PartnersSettings
from services.search.partners.sql_store import SqlPartnerStore
from services.search.partners.trail import PartnerTrail
from services.search.partners.viewing import ViewConsortium
from services.search.policy import WatchlistSource
from services.shared.clock import Clock
from services.shared.errors import CallerError
from services.shared.multipart import Upload
from services.shared.periodic import Periodic
from services.shared.rate_limits import RateLimits
from services.shared.settings import RateLimitSettings
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal, TokenVerifier

_SWEEP_EVERY_S = 10.0
_RENEW_EVERY_S = 30.0
# Consortium searches at one time: each may wait for a partner that is slow, and health has to have threads left.
_MAX_SEARCHES = 8


class _InItsTurn:
    """A search at home takes one of the places of searches, and gives it back before partners are waited for."""

    def __init__(self, identify: Identification, slots: Slots) -> None:
        self._identify = identify
        self._slots = slots

    def __call__(self, principal: Principal, upload: Upload, idempotency_key: str | None = None) -> bytes:
        with self._slots.taken():
            return self._identify(principal, upload, idempotency_key)

    def reject(self, principal: Principal, error: CallerError) -> NoReturn:
        self._identify.reject(principal, error)

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None:
        self._identify.require_still(principal, document)


@dataclass(frozen=True, slots=True)
class AskedPartners:
    """How partners are asked, whatever the edge: the use cases, and the places of such searches."""

    search: SearchConsortium
    offers: OfferPartners
    slots: Slots


@dataclass(frozen=True, slots=True)
class PartnerParts:
    """The router to include, the work to start, the gateway where partners call, and what ends with the service."""

    router: APIRouter
    asked: AskedPartners
    periodics: tuple[Periodic, ...]
    gateway: PartnerGateway | None
    closers: tuple[Callable[[], None], ...]


def wire_partners(
    settings: PartnersSettings,
    *,
    engine: sa.Engine,
    identify_for: IdentificationFor,
    renderer: Renderer,
    recorder: AuditRecorder,
    clock: Clock,
    verifier: TokenVerifier,
    watchlists: WatchlistSource,
    slots: Slots,
    limits: RateLimitSettings,
    metrics: Metrics,
    standing: StandingPermission,
) -> PartnerParts:
    """Raises ConfigurationError: a partner file that cannot be used ends the start."""
    file = None if settings.path is None else PartnerFile(settings.path)
    if file is not None:
        file.current()
    store = SqlPartnerStore(engine)
    trail, link = PartnerTrail(recorder, store, clock), HttpPartnerLink(clock)
    executor = ThreadPoolExecutor(MAX_AT_ONCE * MAX_PARTNERS, thread_name_prefix="consortium")
    search = SearchConsortium(
        file=file,
        identify=_InItsTurn(identify_for({}), slots),
        link=link,
        store=store,
        trail=trail,
        renderer=renderer,
        clock=clock,
        executor=executor,
    )
    places = Slots(_MAX_SEARCHES, slots.limits)
    router = create_consortium_router(search, ViewConsortium(store, trail, standing), verifier, places)
    asked = AskedPartners(search, OfferPartners(file, watchlists, clock), places)
    gateway, periodics = None, [Periodic("partner-sweep", trail.sweep, _SWEEP_EVERY_S)]
    if file is not None and settings.port is not None:
        answer = AnswerPartner(
            file=file,
            identify_for=identify_for,
            store=store,
            trail=trail,
            limits=RateLimits(limits.model_copy(update={"person_per_minute": limits.force_per_minute})),
            person_limits=slots.limits or RateLimits(limits, metrics),
            clock=clock,
        )
        gateway = PartnerGateway(settings, file, create_gateway(answer, Slots(settings.max_concurrent)))
        periodics.append(Periodic("partner-certificates", gateway.renew, _RENEW_EVERY_S))
    closers = (link.close, lambda: executor.shutdown(wait=False, cancel_futures=True))
    return PartnerParts(router, asked, tuple(periodics), gateway, closers)
