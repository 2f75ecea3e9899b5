"""One (watchlist, owner) in memory: a contiguous run of chunks, all full but the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.search.gallery.chunk import CHUNK_ROWS, Chunk
from services.search.ports import ReferenceRecord


@dataclass(frozen=True, slots=True, eq=False)
class ChunkView:
    """The first `count` rows of a chunk, which never change."""

    chunk: Chunk
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class BlockView:
    """What a search sees of one block. Rows are numbered through its chunks."""

    watchlist_id: str
    owner: str
    chunks: tuple[ChunkView, ...]
    count: int

    def record(self, chunk: Chunk, row: int) -> ReferenceRecord:
        return ReferenceRecord(
            reference_id=chunk.reference_ids[row],
            subject_id=chunk.subject_ids[row],
            owner=self.owner,
            watchlist_id=self.watchlist_id,
            version=int(chunk.versions[row]),
            expires_at=int(chunk.expires_at[row]),
        )


class Block:
    """The writer's side of one (watchlist, owner). Not thread-safe: one writer; readers use `view()`."""

    def __init__(self, watchlist_id: str, owner: str, dimension: int) -> None:
        self._watchlist_id = watchlist_id
        self._owner = owner
        self._dimension = dimension
        self._chunks: list[Chunk] = []
        self._fresh: set[int] = set()  # chunks that no view has shown since they were copied or made

    @property
    def count(self) -> int:
        return (len(self._chunks) - 1) * CHUNK_ROWS + self._chunks[-1].count if self._chunks else 0

    def view(self) -> BlockView:
        """Publish: everything that is in the block now is shown and from now on changed in copies only."""
        self._fresh.clear()
        chunks = tuple(ChunkView(chunk, chunk.count) for chunk in self._chunks)
        return BlockView(self._watchlist_id, self._owner, chunks, self.count)

    def version(self, row: int) -> int:
        return int(self._chunks[row // CHUNK_ROWS].versions[row % CHUNK_ROWS])

    def append(self, records: Sequence[ReferenceRecord], vectors: npt.NDArray[np.float32]) -> range:
        """Add at the end; returns the rows they got."""
        first = self.count
        done = 0
        while done < len(records):
            if not self._chunks or self._chunks[-1].room == 0:
                self._fresh.add(len(self._chunks))
                self._chunks.append(Chunk.empty(self._dimension))
            take = min(self._chunks[-1].room, len(records) - done)
            self._fill(self._chunks[-1], records[done : done + take], vectors[done : done + take])
            done += take
        return range(first, first + done)

    def replace(self, row: int, record: ReferenceRecord, vector: npt.NDArray[np.float32]) -> None:
        chunk, at = self._writable(row // CHUNK_ROWS), row % CHUNK_ROWS
        chunk.vectors[at] = vector
        chunk.versions[at] = record.version
        chunk.expires_at[at] = record.expires_at
        chunk.reference_ids[at] = record.reference_id
        chunk.subject_ids[at] = record.subject_id

    def remove(self, row: int) -> str | None:
        """Remove; the last reference takes the row, so that nothing removed is ever compared. Returns its id."""
        last = self.count - 1
        tail = self._writable(len(self._chunks) - 1)
        tail_at = tail.count - 1
        moved = None
        if row != last:
            chunk, at = self._writable(row // CHUNK_ROWS), row % CHUNK_ROWS
            chunk.vectors[at] = tail.vectors[tail_at]
            chunk.versions[at] = tail.versions[tail_at]
            chunk.expires_at[at] = tail.expires_at[tail_at]
            chunk.subject_ids[at] = tail.subject_ids[tail_at]
            moved = chunk.reference_ids[at] = tail.reference_ids[tail_at]
        tail.reference_ids.pop()
        tail.subject_ids.pop()
        tail.count = tail_at
        if tail_at == 0:
            self._fresh.discard(len(self._chunks) - 1)
            self._chunks.pop()
        return moved

    def _fill(self, chunk: Chunk, records: Sequence[ReferenceRecord], vectors: npt.NDArray[np.float32]) -> None:
        rows = slice(chunk.count, chunk.count + len(records))
        chunk.vectors[rows] = vectors
        chunk.versions[rows] = [record.version for record in records]
        chunk.expires_at[rows] = [record.expires_at for record in records]
        chunk.reference_ids.extend(record.reference_id for record in records)
        chunk.subject_ids.extend(record.subject_id for record in records)
        chunk.count += len(records)

    def _writable(self, number: int) -> Chunk:
        if number not in self._fresh:
            self._chunks[number] = self._chunks[number].copy()
            self._fresh.add(number)
        return self._chunks[number]
