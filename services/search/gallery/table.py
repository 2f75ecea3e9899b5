"""Rows in columns, in chunks, that one thread writes and any number read without a lock.

Readers hold *views*: the columns of a chunk, cut to the rows that it had. The one writer keeps every row of a view as
it was:

1. rows past the newest view's may be written (nobody looks at them), so an append costs no copy;
2. any other change is made to a copy of the chunk, which takes its place in the next view;
3. after a cut the last chunk is always a copy, so that rule 1 holds for it again.

A search thus sees one state from start to end, and neither waits for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Columns of equal length. Texts are fixed-width arrays, which may be wider in one chunk than in another.
Fields = tuple[npt.NDArray[Any], ...]


@dataclass(slots=True, eq=False)
class _Chunk:
    """The first `count` rows are in use."""

    fields: Fields
    count: int

    @property
    def capacity(self) -> int:
        return len(self.fields[0])

    def write(self, start: int, rows: Fields) -> None:
        for column, values in zip(self.fields, rows, strict=True):
            column[start : start + len(values)] = values

    def holds(self, rows: Fields) -> bool:
        """Whether the texts of the rows fit; numpy would cut them silently."""
        return all(ours.itemsize >= theirs.itemsize for ours, theirs in zip(self.fields, rows, strict=True))

    def copy(self, capacity: int, rows: Fields) -> _Chunk:
        """With room for as many rows and for the texts of these."""
        twin = _Chunk(_room_for(capacity, self.fields, rows), self.count)
        twin.write(0, part_of(self.fields, 0, self.count))
        return twin


class Table:
    """The writer's side. Every chunk but the last has `chunk_rows` rows; one starts at `first_rows` and doubles."""

    def __init__(self, chunk_rows: int, first_rows: int) -> None:
        self._chunk_rows = chunk_rows
        self._first_rows = first_rows
        self._chunks: list[_Chunk] = []
        self._views: dict[int, Fields] = {}  # by number of the chunk; gone when that changed
        self._unshown: set[int] = set()  # chunks that no view has shown, which may be changed in place

    @property
    def count(self) -> int:
        return (len(self._chunks) - 1) * self._chunk_rows + self._chunks[-1].count if self._chunks else 0

    def view(self) -> tuple[Fields, ...]:
        """What there is now, by chunk. The same objects as last time for chunks that did not change."""
        self._unshown.clear()
        for number, chunk in enumerate(self._chunks):
            if number not in self._views:
                self._views[number] = part_of(chunk.fields, 0, chunk.count)
        return tuple(self._views[number] for number in range(len(self._chunks)))

    def row(self, number: int) -> Fields:
        """One row, as columns of length one."""
        at = number % self._chunk_rows
        return part_of(self._chunks[number // self._chunk_rows].fields, at, at + 1)

    def append(self, rows: Fields) -> None:
        done, total = 0, len(rows[0])
        while done < total:
            tail = self._tail_for(rows, total - done)
            taken = min(tail.capacity - tail.count, total - done)
            tail.write(tail.count, part_of(rows, done, done + taken))
            tail.count += taken
            done += taken

    def overwrite(self, number: int, row: Fields) -> None:
        chunk = number // self._chunk_rows
        self._writable(chunk, row).write(number % self._chunk_rows, row)

    def cut(self, count: int) -> None:
        """Drop every row from `count` on."""
        kept_chunks = -(-count // self._chunk_rows)
        for number in range(kept_chunks, len(self._chunks)):
            self._views.pop(number, None)
            self._unshown.discard(number)
        del self._chunks[kept_chunks:]
        if self._chunks:
            tail = kept_chunks - 1
            kept = count - tail * self._chunk_rows
            if kept < self._chunks[tail].count:
                self._writable(tail, self._chunks[tail].fields).count = kept

    def _tail_for(self, rows: Fields, coming: int) -> _Chunk:
        """The last chunk, with room for one row at least."""
        if not self._chunks or self._chunks[-1].count == self._chunk_rows:
            self._unshown.add(len(self._chunks))
            self._chunks.append(_Chunk(_room_for(self._room(coming), rows, rows), 0))
        number = len(self._chunks) - 1
        tail = self._chunks[number]
        self._views.pop(number, None)
        if tail.count == tail.capacity:
            tail = self._replace(number, tail.copy(self._room(max(2 * tail.count, tail.count + coming)), rows))
        elif not tail.holds(rows):
            tail = self._replace(number, tail.copy(tail.capacity, rows))
        return tail

    def _room(self, wanted: int) -> int:
        return min(max(wanted, self._first_rows), self._chunk_rows)

    def _writable(self, number: int, row: Fields) -> _Chunk:
        chunk = self._chunks[number]
        self._views.pop(number, None)
        if number in self._unshown and chunk.holds(row):
            return chunk
        return self._replace(number, chunk.copy(chunk.capacity, row))

    def _replace(self, number: int, chunk: _Chunk) -> _Chunk:
        self._chunks[number] = chunk
        self._unshown.add(number)
        return chunk


def part_of(fields: Fields, start: int, stop: int) -> Fields:
    return tuple(column[start:stop] for column in fields)


def _room_for(rows: int, first: Fields, second: Fields) -> Fields:
    """Unwritten rows as wide as either. Memory is taken when a row is written."""
    types = (np.promote_types(one.dtype, other.dtype) for one, other in zip(first, second, strict=True))
    return tuple(np.empty((rows, *column.shape[1:]), kind) for column, kind in zip(first, types, strict=True))
