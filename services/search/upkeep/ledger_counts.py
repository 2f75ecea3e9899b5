"""How many references cannot be searched, as the ledger counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from services.rpc.v1 import ingest_pb2
from services.shared.errors import LikenessError


class CountSource(Protocol):
    """What is needed of `services.rpc.clients.LedgerClient`."""

    def count(self) -> ingest_pb2.LedgerCounts: ...


class LedgerCounts:
    """Refused and quarantined enrolments by watchlist; `refresh` is called in the background, a search only reads."""

    def __init__(self, ledger: CountSource, lost: Callable[[], Mapping[str, int]] = dict) -> None:
        """`lost`: enrolled references without a template of the model in service, by watchlist."""
        self._ledger = ledger
        self._lost = lost
        self._unsearchable: dict[str, int] | None = None

    def refresh(self) -> None:
        """Ask the ledger. While it does not answer the number is unknown rather than old."""
        try:
            counts = self._ledger.count()
        except LikenessError:
            self._unsearchable = None
            raise
        self._unsearchable = {count.watchlist_id: count.refused + count.quarantined for count in counts.watchlists}

    def unsearchable(self, watchlist_ids: Sequence[str]) -> int | None:
        """Of these watchlists together; None while not known."""
        known = self._unsearchable
        if known is None:
            return None
        lost = self._lost()
        return sum(known.get(watchlist_id, 0) + lost.get(watchlist_id, 0) for watchlist_id in watchlist_ids)
