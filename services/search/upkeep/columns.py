"""References as they cross the wire, in columns, and as the gallery takes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.rpc.v1 import ingest_pb2
from services.search.ports import ReferenceRecord
from services.shared.errors import InvalidRequest

Vectors = npt.NDArray[np.float32]


def records_of(batch: ingest_pb2.ReferenceBatch) -> tuple[list[ReferenceRecord], Vectors]:
    """The records of a batch and their vectors, row by row. Raises InvalidRequest when the columns do not fit."""
    watchlist_id = batch.watchlist_id
    count = len(batch.reference_ids)
    columns = (batch.reference_ids, batch.subject_ids, batch.owners, batch.versions, batch.expires_at)
    if not watchlist_id or any(len(column) != count for column in columns):
        raise InvalidRequest(
            "The columns of the batch are not of one length, or it names no watchlist.",
            advice="Send one reference id, subject id, owner, version and expiry for each row.",
        )
    if len(batch.vectors) != count * batch.dimension * 4:
        raise InvalidRequest(
            f"{len(batch.vectors)} bytes of vectors for {count} references of {batch.dimension} values.",
            advice="Send float32 little endian, row by row.",
        )
    records = [
        ReferenceRecord(reference_id, subject_id, owner, watchlist_id, version, expires_at)
        for reference_id, subject_id, owner, version, expires_at in zip(*columns, strict=True)
    ]
    vectors = np.frombuffer(batch.vectors, "<f4").reshape(count, batch.dimension).astype(np.float32, copy=False)
    return records, vectors
