"""Proofs of RFC 6962, as their reader checks them: that an entry is in the log, and that the log only grew."""

from __future__ import annotations

from collections.abc import Sequence

from services.audit.verification import EMPTY_ROOT, VerificationFailed, node_hash


def check_inclusion(leaf: bytes, sequence: int, tree_size: int, path: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2; VerificationFailed unless the path leads from the leaf to the root."""
    if not 0 <= sequence < tree_size:
        raise VerificationFailed(7, sequence, f"sequence {sequence} is not in a tree of {tree_size} entries")
    place, last, current = sequence, tree_size - 1, leaf
    for sibling in path:
        if last == 0:
            raise VerificationFailed(7, sequence, "the inclusion proof is too long")
        if place & 1 or place == last:
            current = node_hash(sibling, current)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        place, last = place >> 1, last >> 1
    if last != 0 or current != root:
        raise VerificationFailed(7, sequence, "the inclusion proof does not lead to the root")


def check_consistency(
    first_size: int, second_size: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> None:
    """RFC 9162 section 2.1.4.2; VerificationFailed unless the second tree extends the first."""

    def fail(why: str) -> VerificationFailed:
        return VerificationFailed(7, first_size, f"the consistency proof {first_size} -> {second_size} {why}")

    if not 0 <= first_size <= second_size:
        raise fail("asks for sizes in the wrong order")
    if first_size in (0, second_size):
        expected = EMPTY_ROOT if first_size == 0 else second_root
        if path or first_root != expected:
            raise fail("does not hold")
        return
    hashes = list(path)
    if first_size & (first_size - 1) == 0:
        hashes.insert(0, first_root)  # a complete subtree: its root stands for itself and is left out of the path
    if not hashes:
        raise fail("is empty")
    place, last = first_size - 1, second_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise fail("is too long")
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    if last != 0 or old != first_root or new != second_root:
        raise fail("does not hold")
