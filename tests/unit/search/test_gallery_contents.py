"""What was searchable: the account agrees with the store through every order of insertions and withdrawals."""

from __future__ import annotations

import hashlib
import random

from prometheus_client import CollectorRegistry

from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.ports import SearchScope
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.gallery_snapshot import GallerySnapshot, parse_snapshot, partition_digest
from services.shared.telemetry import Metrics
from tests.integration.search.peers import Reference, batch_of, vector_of
from tests.unit.search.fakes import FakeLedgerSource, FakeModels

SCOPES = [SearchScope("custody", frozenset({"northshire", "eastmoor"})), SearchScope("op_liberal", frozenset({"x"}))]


def _keeper() -> GalleryKeeper:
    keeper = GalleryKeeper(ExactGalleryStore(), FakeModels(), FakeLedgerSource(), Metrics(CollectorRegistry()))
    keeper.tend()
    return keeper


def _snapshot(keeper: GalleryKeeper) -> GallerySnapshot:
    found = keeper.snapshot(SCOPES, since=keeper.generation)
    assert found is not None
    return found


def test_it_agrees_with_the_store_whatever_comes_in_whatever_order() -> None:
    draw, keeper = random.Random(5), _keeper()
    held: dict[str, tuple[str, int]] = {}
    withdrawn: dict[str, int] = {}
    for _ in range(400):
        name, version = f"r-{draw.randrange(40)}", draw.randrange(1, 60)
        if draw.random() < 0.6:
            owner = "northshire" if int(name[2:]) % 2 else "eastmoor"
            keeper.put(batch_of([Reference(name, name, vector_of(name), owner=owner, version=version)]))
            if version > max(held.get(name, ("", -1))[1], withdrawn.get(name, -1)):
                held[name] = (owner, version)
                withdrawn.pop(name, None)
        else:
            keeper.withdraw([name], [version])
            if version >= max(held.get(name, ("", -1))[1], withdrawn.get(name, -1)):
                held.pop(name, None)
                withdrawn[name] = version
    for partition in _snapshot(keeper).partitions:
        names = [name for name, (owner, _) in held.items() if owner == partition.owner]
        assert (partition.references, partition.digest) == (len(names), partition_digest(names))
    assert sum(partition.references for partition in _snapshot(keeper).partitions) == len(held)
    assert keeper.counts_by_watchlist()["custody"] == len(held)


def test_the_order_of_enrolment_makes_no_difference_and_the_content_does() -> None:
    references = [Reference(f"r-{number}", "S", vector_of(str(number))) for number in range(30)]
    first, second = _keeper(), _keeper()
    first.put(batch_of(references))
    for reference in reversed(references):
        second.put(batch_of([reference]))
    assert _snapshot(first).snapshot_id == _snapshot(second).snapshot_id
    second.withdraw(["r-7"], [2])
    assert _snapshot(first).snapshot_id != _snapshot(second).snapshot_id
    assert parse_snapshot(_snapshot(first).document()) == _snapshot(first)


def test_a_change_during_a_search_is_said() -> None:
    keeper = _keeper()
    keeper.put(batch_of([Reference("r-1", "S", vector_of("1"))]))
    before = keeper.generation
    assert keeper.snapshot(SCOPES, since=before).is_exact  # type: ignore[union-attr]
    keeper.put(batch_of([Reference("r-2", "S", vector_of("2"))]))
    assert not keeper.snapshot(SCOPES, since=before).is_exact  # type: ignore[union-attr]


def test_the_digest_by_hand() -> None:
    """As somebody would work it out from the description alone."""
    names = [f"reference-{number}" for number in range(1000)]
    buckets: dict[int, list[str]] = {number: [] for number in range(256)}
    for name in names:
        buckets[hashlib.sha256(name.encode()).digest()[0]].append(name)
    whole = hashlib.sha256()
    for number in range(256):
        lines = "".join(f"{name}\n" for name in sorted(buckets[number]))
        whole.update(hashlib.sha256(lines.encode()).digest())
    assert partition_digest(reversed(names)) == whole.hexdigest()
