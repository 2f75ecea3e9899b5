"""The Merkle tree of the log after RFC 6962 and RFC 9162, kept so that nothing ever walks all of it.

Beside every entry stand its leaf hash and the hashes of the complete subtrees that it closes. The subtree of level L
and index i (2^L leaves from i * 2^L on) is therefore found with the entry (i + 1) * 2^L - 1, at place L: appending is
one row, and any root or proof reads O(log n) of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.audit.verification import HASH_BYTES, Frontier, root_of_peaks


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A complete subtree: 2^level leaves, the index-th of its level."""

    level: int
    index: int

    @property
    def closing_sequence(self) -> int:
        """The entry beside which the hash of this subtree is kept."""
        return ((self.index + 1) << self.level) - 1


Hashes = Mapping[Node, bytes]


def node_of_stored(hashes: bytes, level: int) -> bytes:
    """The hash of the subtree of a level from what is kept beside the entry that closes it."""
    return hashes[level * HASH_BYTES : (level + 1) * HASH_BYTES]


def peaks_of(start: int, end: int) -> list[Node]:
    """The complete subtrees that leaves [start, end) fall into, left to right; start is a multiple of the biggest."""
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return nodes


# A part of a proof: the root of the leaves [start, end).
Range = tuple[int, int]


def inclusion_ranges(sequence: int, size: int) -> list[Range]:
    """The parts of PATH(sequence, D[size]) of RFC 6962 section 2.1.1, from the leaf up."""
    start, end = 0, size
    parts: list[Range] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if sequence < middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((start, middle))
            start = middle
    return parts[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """The parts of PROOF(first, D[second]) of RFC 6962 section 2.1.2; empty for 0 and for equal sizes."""
    if first in (0, second):
        return []
    start, end = 0, second
    parts: list[Range] = []
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((start, middle))
            start = middle
    if start:  # otherwise it is the first tree's own root, which the verifier has
        parts.append((start, end))
    return parts[::-1]


def _split(width: int) -> int:
    """The largest power of two smaller than the width."""
    return 1 << ((width - 1).bit_length() - 1)


def nodes_of(ranges: Iterable[Range]) -> set[Node]:
    """Every stored hash that the ranges need."""
    return {node for start, end in ranges for node in peaks_of(start, end)}


def hashes_of(ranges: Iterable[Range], known: Hashes) -> list[bytes]:
    """The root of each range from the stored hashes of its complete subtrees."""
    return [root_of_peaks([known[node] for node in peaks_of(start, end)]) for start, end in ranges]


def frontier_of(size: int, known: Hashes) -> Frontier:
    return Frontier(size, [known[node] for node in peaks_of(0, size)])


def sequences_of(nodes: Iterable[Node]) -> Sequence[int]:
    return sorted({node.closing_sequence for node in nodes})
