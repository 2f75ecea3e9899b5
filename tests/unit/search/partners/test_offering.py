"""Who may be asked: an address, a watchlist that the person may search, an agreement that is in force today."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.search.partners.config import PartnerFile
from services.search.partners.offering import OfferPartners, PartnerOffer
from services.shared.errors import Forbidden
from services.shared.watchlists import WatchlistFile
from tests.support.partners import Side, introduce
from tests.unit.search.fakes import OPERATOR, ManualClock

ASKER = replace(OPERATOR, watchlists=frozenset({"op_liberal", "custody"}))
OFFER = PartnerOffer("eastmoor", ("eastmoor",), ("op_liberal",), ("OPL-2026-EASTMOOR",))


class FarClock(ManualClock):
    def now(self) -> datetime:
        return datetime(2036, 6, 1, tzinfo=UTC)


@pytest.fixture
def offers(north: Side, east: Side) -> OfferPartners:
    introduce(north, east, watchlists=("op_liberal", "sex_offenders"))
    return OfferPartners(PartnerFile(north.file), WatchlistFile(), ManualClock())


def test_a_partner_is_offered_with_the_agreement_that_it_rests_on(offers: OfferPartners) -> None:
    assert offers(ASKER, ["custody", "op_liberal"]) == (OFFER,)
    assert offers(ASKER, ["custody"]) == ()
    # Of the watchlists asked for, none that the person may not search.
    assert offers(replace(ASKER, watchlists=frozenset({"custody"})), ["op_liberal"]) == ()
    assert offers(ASKER, ["op_liberal", "sex_offenders"]) == (OFFER,)


def test_without_an_agreement_in_force_nobody_is_offered(offers: OfferPartners, north: Side) -> None:
    late = OfferPartners(PartnerFile(north.file), WatchlistFile(), FarClock())
    assert late(ASKER, ["op_liberal"]) == ()


def test_a_partner_without_an_address_may_only_ask(offers: OfferPartners, north: Side) -> None:
    lines = north.file.read_text("utf-8").splitlines()
    north.file.write_text("\n".join(line for line in lines if not line.startswith("address")), "utf-8")
    assert OfferPartners(PartnerFile(north.file), WatchlistFile(), ManualClock())(ASKER, ["op_liberal"]) == ()


def test_nobody_without_the_role_learns_of_partners(offers: OfferPartners) -> None:
    with pytest.raises(Forbidden):
        offers(replace(ASKER, roles=frozenset({"requester"})), ["op_liberal"])
    assert OfferPartners(None, WatchlistFile(), ManualClock())(ASKER, ["op_liberal"]) == ()
