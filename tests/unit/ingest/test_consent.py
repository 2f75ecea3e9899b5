"""Whose enrolled images another force is shown: asked of the agreements at each look."""

from __future__ import annotations

from datetime import date

import pytest

from services.ingest.consent import SharingConsent
from services.shared.clock import SystemClock
from services.shared.errors import Forbidden
from services.shared.watchlists import WatchlistFile


class Register:
    def __init__(self, *ended: str) -> None:
        self._ended = ended

    def find(self, watchlist_id: str, owner: str, on: date) -> str:
        return "" if owner in self._ended else f"AGR-{owner}"


def _consent(*ended: str) -> SharingConsent:
    return SharingConsent(WatchlistFile(), Register(*ended), SystemClock())


def test_an_agreement_in_force_on_both_sides_shows_the_image() -> None:
    _consent().require("northshire", "op_liberal", "eastmoor")


@pytest.mark.parametrize("ended", ["eastmoor", "northshire"])
def test_where_either_agreement_has_ended_it_is_not_shown(ended: str) -> None:
    with pytest.raises(Forbidden) as refused:
        _consent(ended).require("northshire", "op_liberal", "eastmoor")
    assert refused.value.code == "agreement_ended"


def test_a_watchlist_that_is_not_configured_any_more_needs_one() -> None:
    with pytest.raises(Forbidden):
        _consent("eastmoor").require("northshire", "gone", "eastmoor")


@pytest.mark.parametrize(("watchlist", "owner"), [("custody", "eastmoor"), ("op_liberal", "northshire")])
def test_ones_own_and_lists_without_agreements_need_none(watchlist: str, owner: str) -> None:
    _consent("eastmoor", "northshire").require("northshire", watchlist, owner)
