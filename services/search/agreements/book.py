"""All agreements in one: those of the watchlist file and those registered by their owners."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock

import structlog

from services.search.agreements.documents import Grant, Withdrawal, is_signed_by_owner
from services.search.agreements.ports import AgreementRecord, AgreementStore
from services.search.policy import WatchlistSource
from services.shared.watchlists import Agreement, OwnerKey, Watchlists


class AgreementBook:
    """The watchlists with every agreement as it stands now: what a decision reads.

    The store is asked for its revision each time, so that what any replica registered counts from the next question. A
    grant counts only while its signature verifies with a key that is configured: a row slipped into the database, or a
    key taken out of the file, permits nothing.
    """

    def __init__(self, file: WatchlistSource, store: AgreementStore, *, only_signed: bool = False) -> None:
        self._file = file
        self._store = store
        self._only_signed = only_signed
        self._lock = Lock()
        self._made_of: tuple[Watchlists, int] | None = None
        self._current: Watchlists | None = None

    def current(self) -> Watchlists:
        """Raises ConfigurationError, DependencyUnavailable."""
        configured = self._file.current()
        revision = self._store.revision()
        with self._lock:
            if self._current is not None and self._made_of is not None:
                file, known = self._made_of
                if file is configured and known == revision:
                    return self._current
            seeds = () if self._only_signed else configured.agreements
            records = self._store.records()
            merged = configured.with_agreements(merge(seeds, records, configured.owner_keys))
            self._made_of, self._current = (configured, len(records)), merged
            return merged


def merge(
    seeds: Iterable[Agreement], records: Sequence[AgreementRecord], keys: Sequence[OwnerKey]
) -> tuple[Agreement, ...]:
    """Agreements by reference: a registered one stands before a configured one, and a withdrawal ends either."""
    agreements = {seed.reference: seed for seed in seeds}
    for record in records:
        document = record.document
        if isinstance(document, Grant):
            if record.signature is None or not is_signed_by_owner(document, record.signature, keys):
                structlog.get_logger().warning("agreement_not_signed_by_owner", reference=document.reference)
                agreements.pop(document.reference, None)
                continue
            agreements[document.reference] = agreement_of(document)
        elif document.reference in agreements:
            agreements[document.reference] = _ended(agreements[document.reference], document)
    return tuple(agreements.values())


def agreement_of(grant: Grant) -> Agreement:
    return Agreement(
        reference=grant.reference,
        watchlist=grant.watchlist,
        owner=grant.owner,
        signed_on=grant.signed_on,
        expires_on=grant.expires_on,
    )


def _ended(agreement: Agreement, withdrawal: Withdrawal) -> Agreement:
    earliest = min(withdrawal.withdrawn_on, agreement.withdrawn_on or withdrawal.withdrawn_on)
    return agreement.model_copy(update={"withdrawn_on": earliest})
