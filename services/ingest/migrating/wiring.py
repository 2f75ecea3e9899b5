"""What the composition root of ingest needs for model migrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from fastapi import APIRouter

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.sql_migrations import SqlMigrations
from services.ingest.adapters.sql_model_templates import SqlBaseReferences, SqlModelReferences, SqlModelTemplates
from services.ingest.adapters.template_vault import TemplateVault
from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.analysis import ImageAnalyst
from services.ingest.loops import Loop
from services.ingest.migrating.api import MigrationApi
from services.ingest.migrating.embedding import EmbedWithOtherModel
from services.ingest.migrating.embeds import Embeds
from services.ingest.migrating.governance import MigrateModel, ServedModels
from services.ingest.migrating.grpc_server import MigrationsServicer
from services.ingest.migrating.watch import MigrationWatch
from services.ingest.models import CurrentModel
from services.ingest.ports import FaceAnalyser, GalleryWriter, ReferenceReader
from services.ingest.settings import IngestSettings, QualityPolicy, QualitySettings
from services.rpc.open_acts import OpenActs, Settling
from services.shared.adapters.image_keys import ImageKeys
from services.shared.clock import Clock
from services.shared.ports.image_store import ImageStore
from services.shared.telemetry import Metrics
from services.shared.tokens import TokenVerifier


class NoCrashCount:
    """An enrolled image that a candidate's embed fails on is a loss to that model, not a mark on the enrolment."""

    def count_crash(self, enrolment_id: str) -> None: ...


@dataclass(frozen=True)
class MigratingParts:
    """What migrations take from the rest of ingest."""

    settings: IngestSettings
    engine: sa.Engine
    committer: GroupCommitter
    migrations: SqlMigrations
    references: ReferenceReader
    keys: ImageKeys | None
    images: ImageStore
    embeds: Embeds
    model: CurrentModel
    gallery: GalleryWriter
    served: ServedModels
    audit: EnrolmentAudit
    acts: OpenActs
    clock: Clock
    metrics: Metrics
    now_ms: Callable[[], int]


@dataclass(frozen=True)
class Migrating:
    """What they give back."""

    embedding: EmbedWithOtherModel
    loops: Sequence[Loop]
    router: APIRouter
    servicer: MigrationsServicer
    settle: Settling
    # Of the ledger's own model.
    references: ReferenceReader


def build_migrating(parts: MigratingParts) -> Migrating:
    settings = parts.settings
    templates = SqlModelTemplates(parts.engine, parts.committer, TemplateVault(parts.keys))
    migrate = MigrateModel(
        migrations=parts.migrations,
        templates=templates,
        embeds=parts.embeds,
        model=parts.model,
        served=parts.served,
        acts=parts.acts,
        clock=parts.clock,
        min_shadow_searches=settings.migration.min_shadow_searches,
    )

    def analyst_of(embed: FaceAnalyser) -> ImageAnalyst:
        return ImageAnalyst(
            ledger=NoCrashCount(),
            images=parts.images,
            analyser=embed,
            quality_settings=_enrolled_already(settings.quality),
            now_ms=parts.now_ms,
        )

    watch = MigrationWatch(parts.migrations, templates, parts.metrics)
    embedding = EmbedWithOtherModel(
        migrations=parts.migrations,
        templates=templates,
        embeds=parts.embeds,
        gallery=parts.gallery,
        analyst_of=analyst_of,
        on_complete=migrate.note_embedded,
        on_made=watch.made,
        clock=parts.clock,
        settings=settings.migration,
    )
    references = SqlModelReferences(parts.references, templates)
    return Migrating(
        embedding=embedding,
        loops=[Loop("other-model", embedding.step), Loop("migration-watch", watch.step)],
        router=MigrationApi(migrate, parts.audit, TokenVerifier(settings.tokens)).router(),
        servicer=MigrationsServicer(parts.migrations, references, templates),
        settle=migrate.settle,
        references=SqlBaseReferences(parts.references, templates, parts.migrations),
    )


def _enrolled_already(quality: QualitySettings) -> QualitySettings:
    """The policy without its floors: an image that was good enough to be enrolled is not refused for quality now."""

    def lenient(policy: QualityPolicy) -> QualityPolicy:
        return policy.model_copy(update={"min_inter_eye_px": 0.0, "min_unified_quality": 0.0})

    return QualitySettings(
        default=lenient(quality.default),
        by_watchlist={name: lenient(policy) for name, policy in quality.by_watchlist.items()},
        by_owner={name: lenient(policy) for name, policy in quality.by_owner.items()},
    )
