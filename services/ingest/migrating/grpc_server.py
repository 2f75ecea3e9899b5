"""likeness.v1.Migrations: what search follows, and the references of any one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Protocol

import grpc

from services.ingest.migrating.migration import MigrationLedger, MigrationState
from services.rpc.v1 import ingest_pb2, migration_pb2, migration_pb2_grpc
from services.shared.errors import InvalidRequest

SERVICE_NAME = "likeness.v1.Migrations"
_SHADOWED = frozenset({MigrationState.SHADOWING, MigrationState.APPROVED, MigrationState.SWITCHED})


class ModelReferences(Protocol):
    """`services.ingest.adapters.sql_model_templates.SqlModelReferences`."""

    def read(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]: ...


class CountsLosses(Protocol):
    """`services.ingest.adapters.sql_model_templates.SqlModelTemplates`."""

    def lost_by_owner(self, model_id: str) -> Mapping[tuple[str, str], int]:
        """By watchlist and owner."""
        ...


class MigrationsServicer(migration_pb2_grpc.MigrationsServicer):
    """Thin: queries."""

    def __init__(self, migrations: MigrationLedger, references: ModelReferences, losses: CountsLosses) -> None:
        self._migrations = migrations
        self._references = references
        self._losses = losses

    def DescribeMigration(  # noqa: N802 - the stub's name
        self, _request: migration_pb2.DescribeMigrationRequest, _context: grpc.ServicerContext
    ) -> migration_pb2.ModelMigration:
        migration = self._migrations.current()
        if migration is None:
            return migration_pb2.ModelMigration()
        is_switched = migration.state is MigrationState.SWITCHED
        lost = self._losses.lost_by_owner(migration.to_model_id) if is_switched else {}
        by_watchlist: Counter[str] = Counter()
        for (watchlist_id, _), count in lost.items():
            by_watchlist[watchlist_id] += count
        return migration_pb2.ModelMigration(
            migration_id=migration.migration_id,
            state=migration.state.value,
            from_model_id=migration.from_model_id,
            to_model_id=migration.to_model_id,
            serving_model_id=migration.serving_model_id,
            lost_by_watchlist=by_watchlist,
            lost_by_owner=[
                migration_pb2.OwnerLoss(watchlist_id=watchlist_id, owner=owner, count=count)
                for (watchlist_id, owner), count in lost.items()
            ],
            is_shadowing=migration.state in _SHADOWED,
        )

    def ReadModelReferences(  # noqa: N802 - the stub's name
        self, request: migration_pb2.ReadModelReferencesRequest, _context: grpc.ServicerContext
    ) -> Iterator[ingest_pb2.ReferenceBatch]:
        if not request.model_id:
            raise InvalidRequest("`model_id` is empty.", advice="Give the model whose references are wanted.")
        yield from self._references.read(request.model_id)
