"""Who searches some owners' references is told how many of theirs could not be searched, and of nobody else's."""

from __future__ import annotations

import pytest

from services.rpc.v1 import ingest_pb2
from services.search.ports import SearchScope
from services.search.upkeep.ledger_counts import LedgerCounts
from services.shared.errors import DependencyUnavailable


class Ledger:
    """Counts as ingest gives them; `is_away` refuses."""

    def __init__(self, *watchlists: ingest_pb2.WatchlistCount) -> None:
        self._watchlists = watchlists
        self.is_away = False

    def count(self) -> ingest_pb2.LedgerCounts:
        if self.is_away:
            raise DependencyUnavailable("Away.", advice="Wait.")
        return ingest_pb2.LedgerCounts(watchlists=self._watchlists)


def _custody(*owners: tuple[str, int, int]) -> ingest_pb2.WatchlistCount:
    return ingest_pb2.WatchlistCount(
        watchlist_id="custody",
        refused=sum(refused for _, refused, _ in owners),
        quarantined=sum(quarantined for *_, quarantined in owners),
        owners=[
            ingest_pb2.OwnerCount(owner=owner, refused=refused, quarantined=quarantined)
            for owner, refused, quarantined in owners
        ],
    )


def _scope(*owners: str) -> SearchScope:
    return SearchScope("custody", frozenset(owners))


def test_only_the_owners_searched_count() -> None:
    counts = LedgerCounts(
        Ledger(_custody(("northshire", 3, 1), ("westhaven", 50, 7))), lambda: {("custody", "northshire"): 2}
    )
    assert counts.unsearchable([_scope("northshire")]) is None, "not asked yet"
    counts.refresh()
    assert counts.unsearchable([_scope("northshire")]) == 6
    assert counts.unsearchable([_scope("northshire", "westhaven")]) == 63
    assert counts.unsearchable([_scope("eastmarch")]) == 0
    assert counts.owners("custody") == {"northshire", "westhaven"}
    assert counts.owners("op_liberal") == frozenset()


def test_it_is_unknown_while_the_ledger_is_away_and_where_it_does_not_say_whose() -> None:
    ledger = Ledger(_custody(("northshire", 3, 1)))
    counts = LedgerCounts(ledger)
    counts.refresh()
    ledger.is_away = True
    with pytest.raises(DependencyUnavailable):
        counts.refresh()
    assert counts.unsearchable([_scope("northshire")]) is None
    of_before = LedgerCounts(Ledger(ingest_pb2.WatchlistCount(watchlist_id="custody", refused=4)))
    of_before.refresh()
    assert of_before.unsearchable([_scope("northshire")]) is None
