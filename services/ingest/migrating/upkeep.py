"""The gallery of the ledger's own model, whichever model searches are answered with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from services.ingest.models import CurrentModel
from services.rpc.v1 import search_pb2


class OneGallery(Protocol):
    """`services.rpc.clients.GalleryUpkeepClient`."""

    def list_references(self) -> Iterator[search_pb2.GalleryListing]: ...

    def rebuild(self) -> search_pb2.GalleryDescription: ...


class SeveralGalleries(Protocol):
    """`services.rpc.migration_clients.ServedModelsClient`."""

    def list_references(self, model_id: str) -> Iterator[search_pb2.GalleryListing]: ...


class OwnGallery:
    """What reconciliation compares the ledger with: while a candidate is in service, that is not the gallery that
    searches use."""

    def __init__(self, served: OneGallery, galleries: SeveralGalleries, model: CurrentModel) -> None:
        self._served = served
        self._galleries = galleries
        self._model = model

    def list_references(self) -> Iterator[search_pb2.GalleryListing]:
        yield from self._galleries.list_references(self._model.model_id())

    def rebuild(self) -> search_pb2.GalleryDescription:
        return self._served.rebuild()
