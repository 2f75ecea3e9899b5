"""Clients of what ingest asks of search and review beside putting references into the gallery."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from services.rpc.clients import GALLERY_DEADLINE_S, translated
from services.rpc.v1 import review_pb2, review_pb2_grpc, search_pb2, search_pb2_grpc


class NeighbourClient:
    """Asks search which references of an owner are alike."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = search_pb2_grpc.GalleryStub(channel)

    def find(self, request: search_pb2.FindNeighboursRequest) -> search_pb2.FindNeighboursResponse:
        """Raises ModelMismatch, GalleryIncomplete, InvalidRequest, DependencyUnavailable."""
        with translated("search"):
            return self._stub.FindNeighbours(request, timeout=GALLERY_DEADLINE_S)


class ReturnsClient:
    """Asks search when a subject's references were candidates."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = search_pb2_grpc.GalleryStub(channel)

    def list_returns(self, owner: str, reference_ids: Sequence[str]) -> Sequence[search_pb2.ReturnedCandidate]:
        """At most 1,000 references. Raises InvalidRequest, DependencyUnavailable."""
        request = search_pb2.ListReturnsRequest(owner=owner, reference_ids=reference_ids)
        with translated("search"):
            return self._stub.ListReturns(request, timeout=GALLERY_DEADLINE_S).returns


class ReleasesClient:
    """Asks review in which released results a subject was the potential name."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = review_pb2_grpc.ReviewStub(channel)

    def list_releases(self, owner: str, reference_ids: Sequence[str]) -> Sequence[review_pb2.ReleasedName]:
        """At most 1,000 references. Raises InvalidRequest, DependencyUnavailable."""
        request = review_pb2.ListReleasesRequest(owner=owner, reference_ids=reference_ids)
        with translated("review"):
            return self._stub.ListReleases(request, timeout=GALLERY_DEADLINE_S).releases
