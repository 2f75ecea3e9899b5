from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.rpc.v1 import ingest_pb2
from tests.integration.search.peers import Peers, Reference, batch_of, vector_like, vector_of
from tests.integration.search.process import SearchProcess, SearchThread

CUSTODY = [
    Reference("r-ann-1", "ANN", vector_of("ann")),
    Reference("r-ann-2", "ANN", vector_like("ann", 0.8)),
    Reference("r-bob-1", "BOB", vector_of("bob")),
    Reference("r-cat-1", "CAT", vector_like("ann", 0.5)),
    Reference("r-old-1", "OLD", vector_like("ann", 0.9), expires_at=1),
    Reference("r-east-1", "ANN", vector_like("ann", 0.95), owner="eastmoor"),
    *(Reference(f"r-{i:03d}", f"S{i:03d}", vector_of(f"stranger {i}")) for i in range(100)),
]
LIBERAL = [
    Reference("l-ann-1", "TRAVELLER", vector_like("ann", 0.7), "op_liberal", "eastmoor"),
    Reference("l-wes-1", "WESTERNER", vector_like("ann", 0.75), "op_liberal", "westhaven"),
]
OFFENDERS = [Reference("s-ann-1", "ANN", vector_like("ann", 0.99), "sex_offenders")]


def _counted(watchlist_id: str, **owners: tuple[int, int]) -> ingest_pb2.WatchlistCount:
    """Refused and quarantined by owner, as the ledger counts them."""
    return ingest_pb2.WatchlistCount(
        watchlist_id=watchlist_id,
        refused=sum(refused for refused, _ in owners.values()),
        quarantined=sum(quarantined for _, quarantined in owners.values()),
        owners=[
            ingest_pb2.OwnerCount(owner=owner, refused=refused, quarantined=quarantined)
            for owner, (refused, quarantined) in owners.items()
        ],
    )


@contextmanager
def filled_peers() -> Iterator[Peers]:
    peers = Peers()
    peers.ledger.batches = [batch_of(references) for references in (CUSTODY[:50], CUSTODY[50:], LIBERAL, OFFENDERS)]
    peers.ledger.counts = ingest_pb2.LedgerCounts(
        watchlists=[
            # Of owners whose references this force may not search as well: they are not told of.
            _counted("custody", northshire=(7, 2), westhaven=(40, 1)),
            _counted("op_liberal", eastmoor=(3, 0), nobody_signed=(11, 0)),
        ]
    )
    with peers.running():
        yield peers


@pytest.fixture
def peers() -> Iterator[Peers]:
    with filled_peers() as peers:
        yield peers


@pytest.fixture
def search(peers: Peers, tmp_path: Path) -> Iterator[SearchThread]:
    with SearchThread(tmp_path, peers) as running:
        yield running


@pytest.fixture(scope="module")
def shared_peers() -> Iterator[Peers]:
    """For tests that only ask for something and change nothing."""
    with filled_peers() as peers:
        yield peers


@pytest.fixture(scope="module")
def shared_search(shared_peers: Peers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchProcess]:
    with SearchProcess(tmp_path_factory.mktemp("search"), shared_peers) as process:
        yield process
