"""How far a migration is, for the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.ingest.migrating.migration import MigrationLedger, MigrationState, OtherTemplate, Progress
from services.shared.telemetry import Metrics

_REST_S = 15.0
_ENDED = (MigrationState.FINISHED, MigrationState.ABANDONED)


class KeepsProgress(Protocol):
    """What is needed of `services.ingest.adapters.sql_model_templates.SqlModelTemplates`."""

    def progress(self, model_id: str) -> Progress: ...


class MigrationWatch:
    """Counts what a migration has and lacks while one is open, and tells of none else."""

    def __init__(self, migrations: MigrationLedger, templates: KeepsProgress, metrics: Metrics) -> None:
        self._migrations = migrations
        self._templates = templates
        self._metrics = metrics

    def made(self, templates: Sequence[OtherTemplate]) -> None:
        """These images were looked at."""
        for each in templates:
            self._metrics.ingest_migration_images_total.labels("lost" if each.loss_reason else "embedded").inc()

    def step(self) -> float:
        migration = self._migrations.current()
        if migration is None or migration.state in _ENDED:
            self._metrics.ingest_migration_references.clear()
            return _REST_S
        progress = self._templates.progress(migration.to_model_id)
        for state in ("embedded", "missing", "lost", "not_in_gallery"):
            self._metrics.ingest_migration_references.labels(state).set(getattr(progress, state))
        return _REST_S
