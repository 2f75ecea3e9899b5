"""The gRPC clients for two models side by side."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from services.rpc.clients import LEDGER_DEADLINE_S, translated
from services.rpc.v1 import (
    ingest_pb2,
    migration_pb2,
    migration_pb2_grpc,
    search_pb2,
)


class MigrationClient:
    """Asks ingest about the migration, and reads the references of any one model."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = migration_pb2_grpc.MigrationsStub(channel)

    def describe(self) -> migration_pb2.ModelMigration:
        """Raises DependencyUnavailable."""
        with translated("ingest"):
            return self._stub.DescribeMigration(migration_pb2.DescribeMigrationRequest(), timeout=5.0)

    def read_references(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        """Raises ModelMismatch, DependencyUnavailable."""
        request = migration_pb2.ReadModelReferencesRequest(model_id=model_id)
        with translated("ingest"):
            yield from self._stub.ReadModelReferences(request, timeout=LEDGER_DEADLINE_S)


class ServedModelsClient:
    """Tells search to follow a switch, and asks what it serves."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = migration_pb2_grpc.ModelsStub(channel)

    def follow(self) -> migration_pb2.ServedModels:
        """Raises DependencyUnavailable."""
        with translated("search"):
            return self._stub.FollowModels(migration_pb2.FollowModelsRequest(), timeout=10.0)

    def shadow_report(self, migration_id: str) -> bytes:
        """A JSON document. Raises DependencyUnavailable."""
        request = migration_pb2.ReportShadowRequest(migration_id=migration_id)
        with translated("search"):
            return self._stub.ReportShadow(request, timeout=10.0).document_json

    def list_references(self, model_id: str) -> Iterator[search_pb2.GalleryListing]:
        """Raises GalleryIncomplete (also where there is none of that model), DependencyUnavailable."""
        request = migration_pb2.ListModelGalleryRequest(model_id=model_id)
        with translated("search"):
            yield from self._stub.ListModelGallery(request, timeout=LEDGER_DEADLINE_S)
