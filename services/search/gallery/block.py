"""One (watchlist, owner) in memory: a run of chunks, all full but the last, with no gap for what was withdrawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.search.gallery.chunk import CHUNK_ROWS, Chunk, ChunkView
from services.search.gallery.columns import Columns, TextColumn
from services.search.ports import ReferenceRecord

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class BlockView:
    """What a search sees of one block."""

    watchlist_id: str
    owner: str
    chunks: tuple[ChunkView, ...]
    count: int

    def record(self, chunk: ChunkView, row: int) -> ReferenceRecord:
        columns = chunk.columns
        return ReferenceRecord(
            reference_id=columns.reference_ids.item(row).decode(),
            subject_id=columns.subject_ids.item(row).decode(),
            owner=self.owner,
            watchlist_id=self.watchlist_id,
            version=columns.versions.item(row),
            expires_at=columns.expires_at.item(row),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """References that changed their row, all of one block."""

    reference_ids: TextColumn
    versions: npt.NDArray[np.int64]
    rows: Rows


class Block:
    """The writer's side. Rows are numbered through the chunks. Not thread-safe: readers use `view()`."""

    def __init__(self, watchlist_id: str, owner: str, chunk_rows: int = CHUNK_ROWS) -> None:
        self.key = (watchlist_id, owner)
        self._chunk_rows = chunk_rows
        self._chunks: list[Chunk] = []
        self._views: dict[int, ChunkView] = {}  # by chunk number; gone when the chunk changed
        self._unshown: set[int] = set()  # chunks that no view has shown, which may be changed in place

    @property
    def count(self) -> int:
        return (len(self._chunks) - 1) * self._chunk_rows + self._chunks[-1].count if self._chunks else 0

    def view(self) -> BlockView:
        """What there is now; from here on it is changed in copies only."""
        self._unshown.clear()
        for number, chunk in enumerate(self._chunks):
            if number not in self._views:
                self._views[number] = chunk.view()
        return BlockView(*self.key, tuple(self._views[number] for number in range(len(self._chunks))), self.count)

    def append(self, rows: Columns) -> Rows:
        """Add at the end; returns the row numbers."""
        first, done, total = self.count, 0, len(rows.versions)
        while done < total:
            tail = self._tail_for(rows)
            taken = min(tail.room, total - done)
            tail.append(rows.take(slice(done, done + taken)))
            done += taken
        return np.arange(first, first + total, dtype=np.int64)

    def remove(self, rows: Rows) -> Moved:
        """Remove distinct rows; the last references take their places, so that nothing removed is compared."""
        count = self.count - len(rows)
        holes = np.sort(rows[rows < count])
        movers = np.setdiff1d(np.arange(count, self.count, dtype=np.int64), rows)
        moved = [self._columns_of(int(row)) for row in movers]
        for hole, columns in zip(holes.tolist(), moved, strict=True):
            self._writable(hole // self._chunk_rows, columns).overwrite(
                slice(hole % self._chunk_rows, hole % self._chunk_rows + 1), columns
            )
        self._cut(count)
        return Moved(
            reference_ids=np.concatenate([np.empty(0, "S1"), *(columns.reference_ids for columns in moved)]),
            versions=np.concatenate([np.empty(0, np.int64), *(columns.versions for columns in moved)]),
            rows=holes,
        )

    def _columns_of(self, row: int) -> Columns:
        at = row % self._chunk_rows
        return self._chunks[row // self._chunk_rows].columns.take(slice(at, at + 1))

    def _tail_for(self, rows: Columns) -> Chunk:
        if not self._chunks or not self._chunks[-1].room:
            self._unshown.add(len(self._chunks))
            self._chunks.append(Chunk.like(rows, self._chunk_rows))
        number = len(self._chunks) - 1
        self._views.pop(number, None)
        tail = self._chunks[number]
        if not tail.columns.holds_texts_of(rows):
            tail = self._replace(number, tail.columns.widened_for(rows))
        return tail

    def _writable(self, number: int, incoming: Columns) -> Chunk:
        chunk = self._chunks[number]
        self._views.pop(number, None)
        if number in self._unshown and chunk.columns.holds_texts_of(incoming):
            return chunk
        return self._replace(number, chunk.columns.widened_for(incoming))

    def _replace(self, number: int, prototype: Columns) -> Chunk:
        self._chunks[number] = self._chunks[number].copy(prototype)
        self._unshown.add(number)
        return self._chunks[number]

    def _cut(self, count: int) -> None:
        """Drop every row from `count` on. The tail becomes a copy: views show rows that an append would write."""
        for number in range(-(-count // self._chunk_rows), len(self._chunks)):
            self._views.pop(number, None)
            self._unshown.discard(number)
        del self._chunks[-(-count // self._chunk_rows) :]
        if not self._chunks:
            return
        tail = len(self._chunks) - 1
        kept = count - tail * self._chunk_rows
        if kept < self._chunks[tail].count:
            self._writable(tail, self._chunks[tail].columns).count = kept
