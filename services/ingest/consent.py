"""Whose enrolled images somebody of another force may still be shown."""

from __future__ import annotations

from services.ingest.enrolling.checks import AgreementSource
from services.shared.clock import Clock
from services.shared.errors import Forbidden
from services.shared.watchlists import WatchlistFile


class SharingConsent:
    """An owner's references in a watchlist that needs agreements are shown to other forces while its agreement and
    theirs are in force: a candidate that was found before a withdrawal is not looked at after it."""

    def __init__(self, watchlists: WatchlistFile, agreements: AgreementSource, clock: Clock) -> None:
        self._watchlists = watchlists
        self._agreements = agreements
        self._clock = clock

    def require(self, force: str, watchlist_id: str, owner: str) -> None:
        """Raises Forbidden (`agreement_ended`), DependencyUnavailable, ConfigurationError."""
        watchlist = self._watchlists.current().get(watchlist_id)
        if force == owner or (watchlist is not None and not watchlist.needs_agreement):
            return
        today = self._clock.now().date()
        if any(not self._agreements.find(watchlist_id, party, today) for party in (owner, force)):
            raise Forbidden(
                "The agreement by which this reference was shared is no longer in force.",
                advice="Ask the owner; without an agreement it is not shown.",
                code="agreement_ended",
            )
