"""What the composition root of search needs to search kept probes again."""

from __future__ import annotations

from services.search.http_api import Slots
from services.search.identification.acceptance import Acceptance
from services.search.identification.identifying import IdentifyFor
from services.search.unsolved.again import SearchAgain
from services.search.unsolved.newcomers import NewcomersOnly, ReferenceHistory
from services.search.unsolved.servicer import UnsolvedServicer
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.clock import Clock
from services.shared.revocations import Revocations, open_revocations
from services.shared.settings import TokenSettings


def wire_unsolved(
    tokens: TokenSettings,
    *,
    identify_for: IdentifyFor,
    acceptance: Acceptance,
    gallery: GalleryKeeper,
    ledger: ReferenceHistory,
    clock: Clock,
    slots: Slots,
) -> UnsolvedServicer:
    revoked = None if tokens.revocations_path is None else open_revocations(tokens.revocations_path)
    search_again = SearchAgain(
        identify_for=identify_for,
        newcomers=lambda since_ms: NewcomersOnly(gallery, acceptance, clock, ledger, since_ms),
        acceptance=acceptance,
        gallery=gallery,
        revocations=Revocations if revoked is None else revoked.current,
    )
    return UnsolvedServicer(search_again, slots)
