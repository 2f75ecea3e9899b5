"""likeness.v1.Gallery with what custodians need of it beside searching."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from services.rpc.v1 import search_pb2
from services.search.grpc_server import GalleryServicer
from services.search.neighbours.finding import FindNeighbours, queries_of, response_of
from services.search.neighbours.returns import SqlReturns
from services.search.upkeep.keeper import GalleryKeeper


class NeighbourServicer(GalleryServicer):
    """The gallery's calls, neighbours as bands, and when references were candidates."""

    def __init__(
        self,
        gallery: GalleryKeeper,
        neighbours: FindNeighbours,
        returns: SqlReturns,
        on_withdrawn: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_withdrawn` is told after references were withdrawn."""
        super().__init__(gallery)
        self._on_withdrawn = on_withdrawn
        self._neighbours = neighbours
        self._returns = returns

    def WithdrawReferences(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.WithdrawReferencesRequest, context: grpc.ServicerContext
    ) -> search_pb2.WithdrawReferencesResponse:
        response = super().WithdrawReferences(request, context)
        self._on_withdrawn()
        return response

    def FindNeighbours(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.FindNeighboursRequest, context: grpc.ServicerContext
    ) -> search_pb2.FindNeighboursResponse:
        scope, queries = queries_of(request)
        return response_of(self._neighbours(scope, request.model_id, queries))

    def ListReturns(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.ListReturnsRequest, context: grpc.ServicerContext
    ) -> search_pb2.ListReturnsResponse:
        return search_pb2.ListReturnsResponse(returns=self._returns.of(request.owner, request.reference_ids))
