"""Templates of another model as a gallery takes them."""

from __future__ import annotations

from collections.abc import Sequence

from services.ingest.migrating.migration import PlacedTemplate
from services.rpc.v1 import ingest_pb2


def batch_of(placed: Sequence[PlacedTemplate], model_id: str) -> ingest_pb2.ReferenceBatch:
    """Templates of one watchlist as the gallery takes them."""
    return ingest_pb2.ReferenceBatch(
        watchlist_id=placed[0].watchlist_id,
        reference_ids=[each.reference_id for each in placed],
        subject_ids=[each.subject_id for each in placed],
        owners=[each.owner for each in placed],
        image_sha256s=[each.image_sha256 for each in placed],
        vectors=b"".join(each.template for each in placed),
        dimension=len(placed[0].template) // 4,
        model_id=model_id,
        versions=[each.version for each in placed],
        expires_at=[each.expires_at for each in placed],
    )
