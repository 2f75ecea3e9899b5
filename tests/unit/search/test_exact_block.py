"""A block against a plain list, and the promise to readers: what a view shows never changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.search.gallery.block import Block, BlockView, Cuts
from services.search.gallery.codes import Codes
from services.search.gallery.columns import Columns, text_column
from services.search.ports import ReferenceRecord

CUTS = Cuts(chunk=8, codes=24, first=2)
DIMENSION = 4


def codes_of(numbers: list[int]) -> Codes:
    codes: Codes = (np.array(numbers, np.int64)[:, None] + np.arange(DIMENSION)).astype(np.uint8)
    return codes


def columns_of(numbers: list[int]) -> Columns:
    """Every field tells the number, so that a mixed-up row is seen."""
    records = [
        ReferenceRecord("r" * (number % 5) + str(number), f"s{number}", "o", "w", number, number + 1)
        for number in numbers
    ]
    turns = np.array(numbers, np.float64)[:, None] + np.arange(DIMENSION)
    vectors = np.cos(turns)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Columns.of(records, unit, np.array(numbers, np.float32))


def shown(view: BlockView) -> list[int]:
    """The numbers in the view, row by row; checks that each row is whole."""
    numbers = [number for chunk in view.chunks for number in chunk.columns.versions.tolist()]
    expected = columns_of(numbers) if numbers else None
    start = 0
    for chunk in view.chunks:
        stop = start + len(chunk.columns.versions)
        for index, column in enumerate(chunk.columns.fields()):
            assert expected is not None
            np.testing.assert_array_equal(column, expected.fields()[index][start:stop])
        start = stop
    assert start == view.count
    codes = np.concatenate([np.empty((0, DIMENSION), np.uint8), *view.codes])
    np.testing.assert_array_equal(codes, codes_of(numbers))
    return numbers


class BlockMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block("w", "o", CUTS)
        self.rows: list[int] = []
        self.next_number = 0
        self.views: list[tuple[BlockView, list[int]]] = []

    @rule(count=st.integers(1, 4 * CUTS.chunk))
    def append(self, count: int) -> None:
        numbers = list(range(self.next_number, self.next_number + count))
        self.next_number += count
        at = self.block.append(columns_of(numbers), codes_of(numbers))
        assert at.tolist() == list(range(len(self.rows), len(self.rows) + count))
        self.rows += numbers

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.integers(0, max(0, len(self.rows) - 1)), unique=True, max_size=len(self.rows)))
        moved = self.block.remove(np.array(chosen, np.int64))
        gone = {self.rows[row] for row in chosen}
        kept = [number for number in self.rows if number not in gone]
        for reference_id, version, row in zip(moved.reference_ids, moved.versions, moved.rows, strict=True):
            assert reference_id == columns_of([int(version)]).reference_ids[0]
            self.rows[int(row)] = int(version)
        del self.rows[len(kept) :]
        assert sorted(self.rows) == sorted(kept)

    @rule()
    def publish(self) -> None:
        view = self.block.view()
        assert shown(view) == self.rows
        assert all(len(chunk.columns.versions) == CUTS.chunk for chunk in view.chunks[:-1])
        assert all(len(codes) == CUTS.codes for codes in view.codes[:-1])
        self.views = [*self.views[-4:], (view, list(self.rows))]

    @invariant()
    def views_stay_as_they_were(self) -> None:
        for view, rows in self.views:
            assert shown(view) == rows

    @invariant()
    def the_count_is_right(self) -> None:
        assert self.block.count == len(self.rows)


TestBlock = BlockMachine.TestCase
TestBlock.settings = settings(deadline=None, max_examples=60, stateful_step_count=25)


def test_an_append_to_a_shown_chunk_copies_nothing() -> None:
    block = Block("w", "o", CUTS)
    block.append(columns_of([1]), codes_of([1]))
    before = block.view()
    block.append(columns_of([6]), codes_of([6]))  # an id as long as the first
    after = block.view()
    assert np.shares_memory(before.chunks[0].columns.vectors, after.chunks[0].columns.vectors)
    assert np.shares_memory(before.codes[0], after.codes[0])
    assert (before.count, after.count) == (1, 2)


def test_a_small_watchlist_takes_little_memory() -> None:
    block = Block("w", "o", Cuts())
    block.append(columns_of([1]), codes_of([1]))
    vectors = block.view().chunks[0].columns.vectors
    assert vectors.base is not None
    assert vectors.base.nbytes == Cuts().first * DIMENSION * 4


def test_a_nul_in_an_id_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        text_column(["fine", "not\0fine"])
