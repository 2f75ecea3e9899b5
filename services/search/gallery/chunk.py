"""The unit of storage: up to CHUNK_ROWS references in contiguous columns.

Searching threads take no lock. They read a published *view* (a chunk and the number of rows it had then), and the one
writer keeps every published row as it was:

1. rows past the newest view's count may be written (nobody looks at them), so an append costs no copy;
2. any other change is made to a copy, which takes the chunk's place in the next view;
3. after a removal the last chunk is always a copy, so that rule 1 holds for it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Copying one chunk (4 MB of vectors) is what a withdrawal costs at most twice; 8192 rows keep it near a millisecond
# and the scan's scores of one chunk in the first-level cache.
CHUNK_ROWS = 8192


@dataclass(slots=True, eq=False)
class Chunk:
    """Columns of up to CHUNK_ROWS references; `count` rows are in use. Only the writer reads or moves `count`."""

    vectors: npt.NDArray[np.float32]
    versions: npt.NDArray[np.int64]
    expires_at: npt.NDArray[np.int64]
    reference_ids: list[str] = field(default_factory=list)
    subject_ids: list[str] = field(default_factory=list)
    count: int = 0

    @classmethod
    def empty(cls, dimension: int) -> Chunk:
        return cls(
            vectors=np.empty((CHUNK_ROWS, dimension), np.float32),
            versions=np.empty(CHUNK_ROWS, np.int64),
            expires_at=np.empty(CHUNK_ROWS, np.int64),
        )

    def copy(self) -> Chunk:
        twin = Chunk.empty(self.vectors.shape[1])
        twin.vectors[: self.count] = self.vectors[: self.count]
        twin.versions[: self.count] = self.versions[: self.count]
        twin.expires_at[: self.count] = self.expires_at[: self.count]
        twin.reference_ids = self.reference_ids[: self.count]
        twin.subject_ids = self.subject_ids[: self.count]
        twin.count = self.count
        return twin

    @property
    def room(self) -> int:
        return CHUNK_ROWS - self.count
