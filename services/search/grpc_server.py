"""The gallery as ingest sees it: thin, all decisions are the keeper's."""

from __future__ import annotations

import grpc

from services.rpc.v1 import ingest_pb2, search_pb2, search_pb2_grpc
from services.search.gallery_keeper import GalleryKeeper

SERVICE_NAME = "likeness.v1.Gallery"


class GalleryServicer(search_pb2_grpc.GalleryServicer):
    """likeness.v1.Gallery. Nothing here returns a template."""

    def __init__(self, gallery: GalleryKeeper) -> None:
        self._gallery = gallery

    def PutReferences(  # noqa: N802 - the name is the wire's
        self, request: ingest_pb2.ReferenceBatch, context: grpc.ServicerContext
    ) -> search_pb2.PutReferencesResponse:
        outcome = self._gallery.put(request)
        return search_pb2.PutReferencesResponse(put=outcome.put, unchanged=outcome.unchanged)

    def WithdrawReferences(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.WithdrawReferencesRequest, context: grpc.ServicerContext
    ) -> search_pb2.WithdrawReferencesResponse:
        withdrawn = self._gallery.withdraw(list(request.reference_ids), list(request.versions))
        return search_pb2.WithdrawReferencesResponse(withdrawn=withdrawn)

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
