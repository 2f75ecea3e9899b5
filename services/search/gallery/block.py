"""One (watchlist, owner) in memory: contiguous rows with no gap for what was withdrawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.search.gallery.codes import Codes, usual_error
from services.search.gallery.columns import Columns, TextColumn
from services.search.gallery.table import Fields, Table
from services.search.ports import ReferenceRecord

Rows = npt.NDArray[np.int64]

# A few rows with bad codes are rather scored in every search than allowed to spoil the bound of their whole chunk.
ODD_ROWS = 64


@dataclass(frozen=True, slots=True)
class Cuts:
    """How a gallery is cut, in rows.

    `chunk`: what a change copies, some 10 MB at 128 values. `codes`: codes are in larger pieces, as each piece costs
    searching threads a hand-over of the GIL; a multiple of `chunk`. `thread`: what a further thread is worth waking
    for (some 0.1 ms, as much as 15,000 rows take). `first`: what room is made for when a watchlist begins.
    """

    chunk: int = 16_384
    codes: int = 131_072
    thread: int = 49_152
    first: int = 256

    def __post_init__(self) -> None:
        if self.codes % self.chunk:
            raise ValueError(f"codes are cut at chunks: {self.codes} is no multiple of {self.chunk}")


@dataclass(frozen=True, slots=True, eq=False)
class ChunkView:
    """Rows that never change. `code_error`: the largest of their codes' errors, but for the `odd_rows`."""

    columns: Columns
    code_error: float
    odd_rows: Rows

    @classmethod
    def of(cls, fields: Fields) -> ChunkView:
        columns = Columns(*fields)
        errors = columns.code_errors
        odd = np.flatnonzero(errors > usual_error(columns.vectors.shape[1]))
        if len(odd) > ODD_ROWS:
            odd = odd[:0]
        return cls(columns, float(np.max(np.delete(errors, odd), initial=0.0)), odd)


@dataclass(frozen=True, slots=True, eq=False)
class BlockView:
    """What a search sees of one block: the same rows in chunks and, in larger pieces, as codes."""

    watchlist_id: str
    owner: str
    chunks: tuple[ChunkView, ...]
    codes: tuple[Codes, ...]
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
    """The writer's side. Not thread-safe: readers use `view()`."""

    def __init__(self, watchlist_id: str, owner: str, cuts: Cuts) -> None:
        self.key = (watchlist_id, owner)
        self._details = Table(cuts.chunk, cuts.first)
        self._codes = Table(cuts.codes, cuts.first)
        self._shown: dict[int, tuple[Fields, ChunkView]] = {}

    @property
    def count(self) -> int:
        return self._details.count

    def view(self) -> BlockView:
        """What there is now; it never changes."""
        chunks = tuple(self._chunk_view(number, fields) for number, fields in enumerate(self._details.view()))
        return BlockView(*self.key, chunks, tuple(codes for (codes,) in self._codes.view()), self.count)

    def append(self, rows: Columns, codes: Codes) -> Rows:
        """Add at the end; returns the row numbers."""
        first = self.count
        self._details.append(rows.fields())
        self._codes.append((codes,))
        return np.arange(first, self.count, dtype=np.int64)

    def remove(self, rows: Rows) -> Moved:
        """Remove distinct rows; the last references take their places, so that nothing removed is compared."""
        count = self.count - len(rows)
        holes = np.sort(rows[rows < count])
        movers = np.setdiff1d(np.arange(count, self.count, dtype=np.int64), rows)
        moved = [Columns(*self._details.row(row)) for row in movers.tolist()]
        for table in (self._details, self._codes):
            for hole, mover in zip(holes.tolist(), movers.tolist(), strict=True):
                table.overwrite(hole, table.row(mover))
            table.cut(count)
        return Moved(
            reference_ids=np.concatenate([np.empty(0, "S1"), *(columns.reference_ids for columns in moved)]),
            versions=np.concatenate([np.empty(0, np.int64), *(columns.versions for columns in moved)]),
            rows=holes,
        )

    def _chunk_view(self, number: int, fields: Fields) -> ChunkView:
        known = self._shown.get(number)
        if known is None or known[0] is not fields:
            known = self._shown[number] = (fields, ChunkView.of(fields))
        return known[1]
