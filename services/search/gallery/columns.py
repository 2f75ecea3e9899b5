"""References as columns: one array a field, so that 107,500 of them cost megabytes and no Python objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.search.gallery.table import Fields
from services.search.ports import ReferenceRecord

TextColumn = npt.NDArray[np.bytes_]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Rows of references. `code_errors` is what `codes.encode` says of `vectors`.

    Texts are UTF-8 in fixed-width arrays: their order is that of the code points.
    """

    vectors: npt.NDArray[np.float32]
    code_errors: npt.NDArray[np.float32]
    versions: npt.NDArray[np.int64]
    expires_at: npt.NDArray[np.int64]
    reference_ids: TextColumn
    subject_ids: TextColumn

    @classmethod
    def of(
        cls,
        records: Sequence[ReferenceRecord],
        vectors: npt.NDArray[np.float32],
        code_errors: npt.NDArray[np.float32],
    ) -> Columns:
        return cls(
            vectors=vectors,
            code_errors=code_errors,
            versions=np.array([record.version for record in records], np.int64),
            expires_at=np.array([record.expires_at for record in records], np.int64),
            reference_ids=text_column([record.reference_id for record in records]),
            subject_ids=text_column([record.subject_id for record in records]),
        )

    def fields(self) -> Fields:
        return (
            self.vectors,
            self.code_errors,
            self.versions,
            self.expires_at,
            self.reference_ids,
            self.subject_ids,
        )


def text_column(texts: Sequence[str]) -> TextColumn:
    """Raises ValueError for a NUL character, which fixed-width arrays do not keep."""
    if "\0" in "".join(texts):
        raise ValueError("an identifier must not hold a NUL character")
    try:
        return np.array(texts, dtype=np.bytes_)
    except UnicodeEncodeError:
        return np.array([text.encode() for text in texts], dtype=np.bytes_)
