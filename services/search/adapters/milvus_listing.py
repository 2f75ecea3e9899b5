"""Everything that a Milvus gallery holds, for reconciliation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from services.search.adapters import milvus_schema as schema
from services.search.adapters.milvus_calls import MilvusCalls
from services.search.ports import HeldReferences
from services.shared.errors import DependencyUnavailable

_ROWS = 2000  # a few MB of vectors


class MilvusListing:
    """The part of MilvusGalleryStore that lists."""

    _alias: str
    _calls: MilvusCalls

    def references(self) -> Iterator[HeldReferences]:
        """Partition by partition, so that a batch is of one watchlist."""
        fields = ["reference_id", "watchlist_id", "version", schema.VECTOR]
        for partition in self._calls.ask("list_partitions", self._alias):
            rows = self._calls.ask(
                "query_iterator", self._alias, batch_size=_ROWS, output_fields=fields, partition_names=[partition]
            )
            try:
                while batch := _next(rows):
                    yield _held(batch)
            finally:
                rows.close()


def _next(rows: Any) -> Any:
    try:
        return rows.next()
    except Exception as error:
        raise DependencyUnavailable(
            f"Milvus stopped listing ({type(error).__name__}).", advice="Try again; operators: check Milvus."
        ) from error


def _held(batch: Any) -> HeldReferences:
    return HeldReferences(
        str(batch[0]["watchlist_id"]),
        [str(row["reference_id"]) for row in batch],
        [int(row["version"]) for row in batch],
        np.array([row[schema.VECTOR] for row in batch], np.float32),
    )
