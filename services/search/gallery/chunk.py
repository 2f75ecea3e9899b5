"""The unit of storage and of scanning: some thousand references in contiguous columns.

Searching threads take no lock. They read a published *view* (a chunk and the number of rows it had then), and the one
writer keeps every published row as it was:

1. rows past the newest view's count may be written (nobody looks at them), so an append costs no copy;
2. any other change is made to a copy, which takes the chunk's place in the next view;
3. after a removal the last chunk is always a copy, so that rule 1 holds for it again.

A search thus sees one state from start to end, and a writer never waits for a search nor a search for a writer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.search.gallery.codes import usual_error
from services.search.gallery.columns import Columns, RowIndex

# Fewer, larger chunks scan faster when many threads search (each costs a hand-over of the GIL); a withdrawal copies
# at most two of them, about 12 MB each at 128 values.
CHUNK_ROWS = 16_384
# A few rows with bad codes are rather scored in every search than allowed to spoil the bound of their whole chunk.
ODD_ROWS = 64


@dataclass(slots=True, eq=False)
class Chunk:
    """The writer's side of a chunk: the first `count` rows are in use."""

    columns: Columns
    count: int = 0

    @classmethod
    def like(cls, prototype: Columns, rows: int) -> Chunk:
        return cls(Columns.room_for(rows, prototype))

    def copy(self, prototype: Columns) -> Chunk:
        twin = Chunk.like(prototype, self.capacity)
        twin.append(self.columns.take(slice(0, self.count)))
        return twin

    @property
    def capacity(self) -> int:
        return len(self.columns.versions)

    @property
    def room(self) -> int:
        return self.capacity - self.count

    def append(self, rows: Columns) -> None:
        added = len(rows.versions)
        self.columns.write(slice(self.count, self.count + added), rows)
        self.count += added

    def overwrite(self, at: RowIndex, rows: Columns) -> None:
        self.columns.write(at, rows)

    def view(self) -> ChunkView:
        rows = self.columns.take(slice(0, self.count))
        errors = rows.code_errors
        odd = np.flatnonzero(errors > usual_error(rows.vectors.shape[1]))
        if len(odd) > ODD_ROWS:
            odd = odd[:0]
        return ChunkView(rows, self.count, float(np.max(np.delete(errors, odd), initial=0.0)), odd)


@dataclass(frozen=True, slots=True, eq=False)
class ChunkView:
    """Rows that never change. `code_error`: the largest of their codes' errors, but for the `odd_rows`."""

    columns: Columns
    count: int
    code_error: float
    odd_rows: npt.NDArray[np.int64]
