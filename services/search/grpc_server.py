"""The gallery as ingest sees it: thin, all decisions are the keeper's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import grpc
import numpy as np

from services.rpc.v1 import ingest_pb2, search_pb2, search_pb2_grpc
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.tracing import stage

SERVICE_NAME = "likeness.v1.Gallery"


class GalleryServicer(search_pb2_grpc.GalleryServicer):
    """likeness.v1.Gallery. Nothing here returns a template."""

    def __init__(self, gallery: GalleryKeeper) -> None:
        self._gallery = gallery

    def PutReferences(  # noqa: N802 - the name is the wire's
        self, request: ingest_pb2.ReferenceBatch, context: grpc.ServicerContext
    ) -> search_pb2.PutReferencesResponse:
        with stage("gallery"):
            outcome = self._gallery.put(request)
        return search_pb2.PutReferencesResponse(put=outcome.put, unchanged=outcome.unchanged)

    def WithdrawReferences(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.WithdrawReferencesRequest, context: grpc.ServicerContext
    ) -> search_pb2.WithdrawReferencesResponse:
        withdrawn = self._gallery.withdraw(list(request.reference_ids), list(request.versions))
        return search_pb2.WithdrawReferencesResponse(withdrawn=withdrawn)

    def ListGallery(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.ListGalleryRequest, context: grpc.ServicerContext
    ) -> Iterator[search_pb2.GalleryListing]:
        for held in self._gallery.references():
            rows = np.ascontiguousarray(held.vectors, "<f4")
            yield search_pb2.GalleryListing(
                watchlist_id=held.watchlist_id,
                reference_ids=held.reference_ids,
                versions=held.versions,
                digests=b"".join(hashlib.sha256(row).digest()[:16] for row in rows),
            )

    def RebuildGallery(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.RebuildGalleryRequest, context: grpc.ServicerContext
    ) -> search_pb2.GalleryDescription:
        self._gallery.rebuild()
        return self.DescribeGallery(search_pb2.DescribeGalleryRequest(), context)

    def DescribeGallery(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.DescribeGalleryRequest, context: grpc.ServicerContext
    ) -> search_pb2.GalleryDescription:
        model = self._gallery.model
        return search_pb2.GalleryDescription(
            state=self._gallery.state.value,
            store=self._gallery.store_name,
            model_id=model.model_id if model is not None else "",
            searchable_by_watchlist=self._gallery.counts_by_watchlist(),
        )
