"""Which partners somebody may have asked, and on which agreements that rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from services.search.partners.config import Partner, PartnerFile
from services.search.policy import SEARCHING_ROLE, WatchlistSource
from services.shared.clock import Clock
from services.shared.errors import Forbidden
from services.shared.tokens import Principal
from services.shared.watchlists import Watchlists


@dataclass(frozen=True, slots=True)
class PartnerOffer:
    """A partner that can be asked, for which watchlists, and the agreements of its forces as they stand here today."""

    name: str
    forces: tuple[str, ...]
    watchlists: tuple[str, ...]
    agreements: tuple[str, ...]


class OfferPartners:
    """Names the partners that have an address and a watchlist that the person may search.

    A watchlist that needs agreements counts only where a force of the partner has one in force today. Whether the
    partner answers is the partner's to decide.
    """

    def __init__(self, file: PartnerFile | None, watchlists: WatchlistSource, clock: Clock) -> None:
        self._file = file
        self._watchlists = watchlists
        self._clock = clock

    def __call__(self, principal: Principal, watchlists: Sequence[str]) -> tuple[PartnerOffer, ...]:
        """In the order of the partner file. Raises Forbidden, ConfigurationError (the file cannot be read)."""
        if SEARCHING_ROLE not in principal.roles:
            raise Forbidden(f"Only the role {SEARCHING_ROLE} may search.", advice="Ask your administrator.")
        if self._file is None:
            return ()
        known, today = self._watchlists.current(), self._clock.now().date()
        wanted = [name for name in dict.fromkeys(watchlists) if name in principal.watchlists]
        offers = (_offer(partner, wanted, known, today) for partner in self._file.current().all)
        return tuple(offer for offer in offers if offer is not None)


def _offer(partner: Partner, wanted: Sequence[str], known: Watchlists, today: date) -> PartnerOffer | None:
    agreements: dict[str, tuple[str, ...]] = {}
    for name in wanted:
        watchlist = known.get(name)
        if watchlist is None or name not in partner.ask_watchlists:
            continue
        found = (known.agreement_in_force(name, force, today) for force in partner.forces)
        in_force = tuple(one.reference for one in found if one is not None)
        if in_force or not watchlist.needs_agreement:
            agreements[name] = in_force
    if partner.address is None or not agreements:
        return None
    relied_on = tuple(dict.fromkeys(reference for references in agreements.values() for reference in references))
    return PartnerOffer(partner.name, partner.forces, tuple(agreements), relied_on)
