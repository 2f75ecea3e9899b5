"""Who may be given references of a watchlist: asked when an export is requested and again when it is fetched."""

from __future__ import annotations

from collections.abc import Mapping

from services.ingest.exports.model import Export, FindsAgreements
from services.shared.clock import Clock
from services.shared.errors import Forbidden, InvalidRequest
from services.shared.watchlists import WatchlistFile


class ExportRules:
    """An owner gives its own references

    - to itself: another system of its own;
    - of a watchlist that is shared under agreements, to a force that is party to it: both have one in force today;
    - to bodies that an administrator has named for the watchlist (LIKENESS_INGEST__EXPORTS__RECIPIENTS).
    """

    def __init__(
        self,
        watchlists: WatchlistFile,
        agreements: FindsAgreements,
        recipients: Mapping[str, tuple[str, ...]],
        clock: Clock,
    ) -> None:
        self._watchlists = watchlists
        self._agreements = agreements
        self._recipients = recipients
        self._clock = clock

    def check(self, export: Export) -> Mapping[str, str]:
        """The agreements by which it is permitted, by party.

        Raises InvalidRequest, Forbidden, DependencyUnavailable.
        """
        watchlist = self._watchlists.current().get(export.watchlist_id)
        if watchlist is None or export.purpose not in watchlist.purposes:
            raise InvalidRequest(
                "There is no such watchlist, or it does not serve this purpose.",
                advice="Give a purpose of the watchlist.",
                code="purpose_not_allowed",
            )
        if not watchlist.needs_agreement:
            self._require_named(export)
            return {}
        today = self._clock.now().date()
        parties = (export.owner,) if self._is_named(export) else (export.owner, export.recipient)
        found = {party: self._agreements.find(watchlist.id, party, today) for party in parties}
        missing = [party for party, reference in found.items() if not reference]
        if missing:
            raise Forbidden(
                f"{', '.join(missing)}: no agreement in force for the watchlist {watchlist.id}.",
                advice="Have the agreement signed or renewed and recorded first.",
                code="agreement_not_in_force",
            )
        return found

    def _is_named(self, export: Export) -> bool:
        return export.recipient in (export.owner, *self._recipients.get(export.watchlist_id, ()))

    def _require_named(self, export: Export) -> None:
        if not self._is_named(export):
            raise Forbidden(
                f"{export.recipient} is not named as a recipient of the watchlist {export.watchlist_id}.",
                advice="An administrator names recipients in LIKENESS_INGEST__EXPORTS__RECIPIENTS.",
                code="recipient_not_permitted",
            )
