"""Clients of what ingest asks search for beside putting references into the gallery."""

from __future__ import annotations

import grpc

from services.rpc.clients import GALLERY_DEADLINE_S, translated
from services.rpc.v1 import search_pb2, search_pb2_grpc


class NeighbourClient:
    """Asks search which references of an owner are alike."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = search_pb2_grpc.GalleryStub(channel)

    def find(self, request: search_pb2.FindNeighboursRequest) -> search_pb2.FindNeighboursResponse:
        """Raises ModelMismatch, GalleryIncomplete, InvalidRequest, DependencyUnavailable."""
        with translated("search"):
            return self._stub.FindNeighbours(request, timeout=GALLERY_DEADLINE_S)
