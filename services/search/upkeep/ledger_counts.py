"""How many references cannot be searched, as the ledger counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from services.rpc.v1 import ingest_pb2
from services.search.ports import SearchScope
from services.shared.errors import LikenessError


class CountSource(Protocol):
    """What is needed of `services.rpc.clients.LedgerClient`."""

    def count(self) -> ingest_pb2.LedgerCounts: ...


class LedgerCounts:
    """Refused and quarantined enrolments by watchlist and owner; `refresh` is called in the background, a search only
    reads."""

    def __init__(self, ledger: CountSource, lost: Callable[[], Mapping[tuple[str, str], int]] = dict) -> None:
        """`lost`: enrolled references without a template of the model in service, by watchlist and owner."""
        self._ledger = ledger
        self._lost = lost
        self._unsearchable: dict[tuple[str, str], int] | None = None

    def refresh(self) -> None:
        """Ask the ledger. While it does not answer the number is unknown rather than old."""
        try:
            counts = self._ledger.count()
        except LikenessError:
            self._unsearchable = None
            raise
        self._unsearchable = _by_owner(counts)

    def owners(self, watchlist_id: str) -> frozenset[str]:
        """Whose references could not be enrolled, as far as known."""
        return frozenset(owner for watchlist, owner in self._unsearchable or {} if watchlist == watchlist_id)

    def unsearchable(self, scopes: Sequence[SearchScope]) -> int | None:
        """Of what was searched, and of nobody else's; None while not known."""
        known = self._unsearchable
        if known is None:
            return None
        lost = self._lost()
        searched = [(scope.watchlist_id, owner) for scope in scopes for owner in scope.owners]
        return sum(known.get(one, 0) + lost.get(one, 0) for one in searched)


def _by_owner(counts: ingest_pb2.LedgerCounts) -> dict[tuple[str, str], int] | None:
    """None where an ingest of an earlier version counts by watchlist alone: whose they are is not known then."""
    found: dict[tuple[str, str], int] = {}
    for watchlist in counts.watchlists:
        if watchlist.refused + watchlist.quarantined and not watchlist.owners:
            return None
        for own in watchlist.owners:
            found[watchlist.watchlist_id, own.owner] = own.refused + own.quarantined
    return found
