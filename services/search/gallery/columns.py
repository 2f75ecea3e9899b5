"""References as columns: one array a field, so that 107,500 of them cost megabytes and no Python objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.search.gallery.codes import encode
from services.search.ports import ReferenceRecord

TextColumn = npt.NDArray[np.bytes_]
RowIndex = slice | int | npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Rows of references. `codes` and `code_errors` are what `codes.encode` says of `vectors`.

    Texts are UTF-8 in fixed-width arrays: their order is that of the code points.
    """

    vectors: npt.NDArray[np.float32]
    codes: npt.NDArray[np.uint8]
    code_errors: npt.NDArray[np.float32]
    versions: npt.NDArray[np.int64]
    expires_at: npt.NDArray[np.int64]
    reference_ids: TextColumn
    subject_ids: TextColumn

    @classmethod
    def of(cls, records: Sequence[ReferenceRecord], vectors: npt.NDArray[np.float32]) -> Columns:
        codes, code_errors = encode(vectors)
        return cls(
            vectors=vectors,
            codes=codes,
            code_errors=code_errors,
            versions=np.array([record.version for record in records], np.int64),
            expires_at=np.array([record.expires_at for record in records], np.int64),
            reference_ids=text_column([record.reference_id for record in records]),
            subject_ids=text_column([record.subject_id for record in records]),
        )

    @classmethod
    def room_for(cls, rows: int, like: Columns) -> Columns:
        """Unwritten rows in the types and widths of others; the memory is taken when a row is written."""
        return cls(*(np.empty((rows, *column.shape[1:]), column.dtype) for column in like.fields()))

    def fields(self) -> tuple[npt.NDArray[Any], ...]:
        return (
            self.vectors,
            self.codes,
            self.code_errors,
            self.versions,
            self.expires_at,
            self.reference_ids,
            self.subject_ids,
        )

    def take(self, rows: RowIndex) -> Columns:
        return Columns(*(column[rows] for column in self.fields()))

    def write(self, rows: RowIndex, source: Columns) -> None:
        for column, values in zip(self.fields(), source.fields(), strict=True):
            column[rows] = values

    def holds_texts_of(self, other: Columns) -> bool:
        """Whether the other's texts fit into this one's widths; numpy would cut them silently."""
        return (
            self.reference_ids.dtype.itemsize >= other.reference_ids.dtype.itemsize
            and self.subject_ids.dtype.itemsize >= other.subject_ids.dtype.itemsize
        )

    def widened_for(self, other: Columns) -> Columns:
        """A row-less prototype whose texts are wide enough for both."""
        return Columns(*(np.concatenate([a[:0], b[:0]]) for a, b in zip(self.fields(), other.fields(), strict=True)))


def text_column(texts: Sequence[str]) -> TextColumn:
    """Raises ValueError for a NUL character, which fixed-width arrays do not keep."""
    if "\0" in "".join(texts):
        raise ValueError("an identifier must not hold a NUL character")
    try:
        return np.array(texts, dtype=np.bytes_)
    except UnicodeEncodeError:
        return np.array([text.encode() for text in texts], dtype=np.bytes_)
