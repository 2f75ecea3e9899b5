"""The tree against RFC 6962's reference vectors and against another implementation."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

import pymerkle
import pytest

from services.audit.merkle import (
    Node,
    consistency_ranges,
    frontier_of,
    hashes_of,
    inclusion_ranges,
    node_of_stored,
    nodes_of,
)
from services.audit.proofs import check_consistency, check_inclusion
from services.audit.verification import EMPTY_ROOT, Frontier, VerificationFailed, leaf_hash

# The leaves and roots that every Certificate Transparency implementation is tested with.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class _Log:
    """Leaves and what the store would keep beside them."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.frontier = Frontier()
        self.stored: list[bytes] = []
        self.reads = 0
        for leaf in leaves:
            self.stored.append(self.frontier.append(leaf_hash(leaf)))

    def hashes(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        nodes = nodes_of(ranges)
        self.reads = len(nodes)
        return hashes_of(ranges, {node: self._node(node) for node in nodes})

    def _node(self, node: Node) -> bytes:
        return node_of_stored(self.stored[node.closing_sequence], node.level)

    def root(self, size: int) -> bytes:
        return self.hashes([(0, size)])[0]


def _leaves(count: int) -> list[bytes]:
    return [f"entry {number}".encode() for number in range(count)]


def test_roots_are_those_of_the_reference_vectors() -> None:
    log = _Log(CT_LEAVES)
    assert [log.root(size).hex() for size in range(1, 9)] == CT_ROOTS
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


def test_inclusion_proof_is_that_of_the_reference_vectors() -> None:
    log = _Log(CT_LEAVES)
    path = [part.hex() for part in log.hashes(inclusion_ranges(5, 8))]
    assert path == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_consistency_proof_is_that_of_the_reference_vectors() -> None:
    log = _Log(CT_LEAVES)
    path = [part.hex() for part in log.hashes(consistency_ranges(6, 8))]
    assert path == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_every_small_tree_agrees_with_pymerkle() -> None:
    leaves = _leaves(70)
    log, other = _Log(leaves), pymerkle.InmemoryTree()
    for size, leaf in enumerate(leaves, 1):
        other.append_entry(leaf)
        root = log.root(size)
        assert root == other.get_root(size)
        for sequence in range(0, size, 7):
            path = log.hashes(inclusion_ranges(sequence, size))
            assert path == list(other.prove_inclusion(sequence + 1, size).path[1:]), (sequence, size)
            check_inclusion(leaf_hash(leaves[sequence]), sequence, size, path, root)
        for first in range(1, size + 1):
            path = log.hashes(consistency_ranges(first, size))
            check_consistency(first, size, log.root(first), root, path)
            # Its consistency paths are laid out in another way; that they verify against our roots is the point.
            other.prove_consistency(first, size).verify(log.root(first), root, first, size)


def test_a_large_tree_agrees_with_pymerkle_and_reads_few_rows() -> None:
    chooser = random.Random(6962)
    leaves = _leaves(5000)
    log, other = _Log(leaves), pymerkle.InmemoryTree()
    for leaf in leaves:
        other.append_entry(leaf)
    for _ in range(100):
        size = chooser.randint(2, 5000)
        sequence = chooser.randrange(size)
        assert log.root(size) == other.get_root(size)
        path = log.hashes(inclusion_ranges(sequence, size))
        assert log.reads <= 2 * size.bit_length()
        assert path == list(other.prove_inclusion(sequence + 1, size).path[1:])
        first = chooser.randint(1, size)
        consistency = log.hashes(consistency_ranges(first, size))
        assert log.reads <= 2 * size.bit_length()
        check_consistency(first, size, log.root(first), log.root(size), consistency)


def test_frontier_continues_from_stored_hashes() -> None:
    leaves = _leaves(300)
    for cut in (0, 1, 2, 127, 128, 255, 299):
        log = _Log(leaves[:cut])
        ranges = [(0, cut)]
        known = {node: node_of_stored(log.stored[node.closing_sequence], node.level) for node in nodes_of(ranges)}
        continued = frontier_of(cut, known)
        for leaf in leaves[cut:]:
            continued.append(leaf_hash(leaf))
        assert continued.root() == _Log(leaves).frontier.root()


def _flip(parts: Sequence[bytes], index: int) -> list[bytes]:
    changed = list(parts)
    changed[index] = bytes([changed[index][0] ^ 1]) + changed[index][1:]
    return changed


@pytest.mark.parametrize(
    "spoil", [lambda path: path[:-1], lambda path: [*path, bytes(32)], lambda path: _flip(path, 0)]
)
def test_spoilt_proofs_are_refused(spoil: Callable[[list[bytes]], list[bytes]]) -> None:
    leaves = _leaves(45)
    log = _Log(leaves)
    path = log.hashes(inclusion_ranges(11, 45))
    with pytest.raises(VerificationFailed):
        check_inclusion(leaf_hash(leaves[11]), 11, 45, spoil(path), log.root(45))
    consistency = log.hashes(consistency_ranges(21, 45))
    with pytest.raises(VerificationFailed):
        check_consistency(21, 45, log.root(21), log.root(45), spoil(consistency))


def test_proofs_for_another_place_size_or_root_are_refused() -> None:
    leaves = _leaves(45)
    log = _Log(leaves)
    path = log.hashes(inclusion_ranges(11, 45))
    for sequence, size, leaf in ((12, 45, 11), (11, 45, 12), (11, 20, 11), (45, 45, 11), (-1, 45, 11)):
        with pytest.raises(VerificationFailed):
            check_inclusion(leaf_hash(leaves[leaf]), sequence, size, path, log.root(45))
    consistency = log.hashes(consistency_ranges(21, 45))
    # A size of the same shape, 44, would pass: sizes are bound by the signed checkpoint, not by the proof.
    for first, second in ((20, 45), (21, 30), (45, 21), (0, 45), (45, 45)):
        with pytest.raises(VerificationFailed):
            check_consistency(first, second, log.root(21), log.root(45), consistency)


def test_consistency_with_nothing_and_with_itself() -> None:
    log = _Log(_leaves(9))
    check_consistency(0, 9, EMPTY_ROOT, log.root(9), [])
    check_consistency(9, 9, log.root(9), log.root(9), [])
    with pytest.raises(VerificationFailed):
        check_consistency(0, 9, log.root(3), log.root(9), [])
