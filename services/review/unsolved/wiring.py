"""What the composition root of review needs for the unsolved file's own work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
import sqlalchemy as sa
import structlog
from fastapi import APIRouter

from services.review.casework.desk import Desk
from services.review.casework.steps import Casebook
from services.review.ports import AuditTrail, ReviewStore
from services.review.unsolved.api import create_unsolved_router
from services.review.unsolved.ending import EndKept
from services.review.unsolved.looking import SeeKept
from services.review.unsolved.searching import SearchKept
from services.review.unsolved.settings import UnsolvedSettings
from services.review.unsolved.sql_store import SqlKeptStore
from services.rpc.unsolved import UnsolvedClient
from services.shared.clock import Clock
from services.shared.periodic import Periodic
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import TokenVerifier

_END_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class UnsolvedParts:
    """The router to include and the work to start."""

    router: APIRouter
    periodics: tuple[Periodic, ...]


def wire_unsolved(
    settings: UnsolvedSettings,
    *,
    engine: sa.Engine,
    store: ReviewStore,
    desk: Desk,
    images: ImageStore,
    search: grpc.Channel,
    audit: AuditTrail,
    clock: Clock,
    verifier: TokenVerifier,
    has_certificate: bool,
) -> UnsolvedParts:
    """`has_certificate`: whether search can know review; without that it would refuse, and nothing is asked."""
    book, kept = Casebook(store, desk.trail, clock), SqlKeptStore(engine)
    works: list[tuple[str, Callable[[], None], float]] = [
        ("unsolved-end", EndKept(settings, book, kept, desk.retention).turn, _END_EVERY_S)
    ]
    if settings.every_s and has_certificate:
        search_kept = SearchKept(
            settings=settings, book=book, kept=kept, images=images, searcher=UnsolvedClient(search), audit=audit
        )
        works.append(("unsolved-search", search_kept.turn, settings.every_s))
    else:
        structlog.get_logger().warning("kept_probes_are_not_searched", every_s=settings.every_s, tls=has_certificate)
    periodics = tuple(Periodic(name, work, interval_s) for name, work, interval_s in works)
    return UnsolvedParts(create_unsolved_router(SeeKept(book, kept), verifier), periodics)
