"""likeness.v1.Gallery with what a custodian's flags need of it."""

from __future__ import annotations

import grpc

from services.rpc.v1 import search_pb2
from services.search.gallery_keeper import GalleryKeeper
from services.search.grpc_server import GalleryServicer
from services.search.neighbours.finding import FindNeighbours, queries_of, response_of


class NeighbourServicer(GalleryServicer):
    """The gallery's calls, and neighbours as bands."""

    def __init__(self, gallery: GalleryKeeper, neighbours: FindNeighbours) -> None:
        super().__init__(gallery)
        self._neighbours = neighbours

    def FindNeighbours(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.FindNeighboursRequest, context: grpc.ServicerContext
    ) -> search_pb2.FindNeighboursResponse:
        scope, queries = queries_of(request)
        return response_of(self._neighbours(scope, request.model_id, queries))
