"""The API of model migrations."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.ingest.auditing import EnrolmentAudit
from services.ingest.migrating.governance import MigrateModel, MigrationReport
from services.ingest.migrating.migration import Loss, MigrationState, ModelMigration
from services.shared.errors import Forbidden
from services.shared.http import bearer
from services.shared.ids import new_id
from services.shared.tokens import Principal, TokenVerifier

ADMINISTRATOR, SUPERVISOR, AUDITOR = "administrator", "supervisor", "auditor"
_ACTING = frozenset({ADMINISTRATOR})
_APPROVING = frozenset({ADMINISTRATOR, SUPERVISOR})
_READING = frozenset({ADMINISTRATOR, SUPERVISOR, AUDITOR})
_MAX_EVIDENCE_CHARS = 900_000


class ReasonBody(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(max_length=200)


class ApprovalBody(BaseModel):
    """On which evidence, and how many losses are accepted."""

    model_config = ConfigDict(extra="forbid")

    evidence: str = Field(
        max_length=_MAX_EVIDENCE_CHARS,
        description="The evaluation.json of `likeness evaluate`, as text: its digest goes into the audit log.",
    )
    accepted_losses: int = Field(ge=0)


class ApprovalView(BaseModel):
    """One person's agreement."""

    person_id: str
    force: str
    approved_at_ms: int
    evidence_sha256: str
    accepted_losses: int


class StepView(BaseModel):
    """What was done, by whom and when."""

    name: str
    person_id: str
    at_ms: int


class MigrationView(BaseModel):
    """A migration and where it stands."""

    migration_id: str
    from_model_id: str
    to_model_id: str
    serving_model_id: str
    state: MigrationState
    reason: str
    approvals: list[ApprovalView]
    steps: list[StepView]

    @classmethod
    def of(cls, migration: ModelMigration) -> "MigrationView":
        return cls(
            migration_id=migration.migration_id,
            from_model_id=migration.from_model_id,
            to_model_id=migration.to_model_id,
            serving_model_id=migration.serving_model_id,
            state=migration.state,
            reason=migration.reason,
            approvals=[
                ApprovalView(
                    person_id=each.person_id,
                    force=each.force,
                    approved_at_ms=each.approved_at_ms,
                    evidence_sha256=each.evidence_sha256,
                    accepted_losses=each.accepted_losses,
                )
                for each in migration.approvals
            ],
            steps=[StepView(name=each.name, person_id=each.person_id, at_ms=each.at_ms) for each in migration.steps],
        )


class MigrationList(BaseModel):
    """Newest first."""

    migrations: list[MigrationView]


class ProgressView(BaseModel):
    """Enrolled references: how many the candidate has a template of, how many are lost to it and why."""

    enrolled: int
    embedded: int
    missing: int
    lost: int
    lost_by_reason: Mapping[str, int]
    not_in_gallery: int


class ReportView(BaseModel):
    """All that approvers are to know."""

    migration: MigrationView
    progress: ProgressView
    shadow: Mapping[str, Any] = Field(description="What the shadow searches came to: counts and shares alone.")
    galleries: Sequence[Mapping[str, Any]]
    problem: str = Field(description="Why search's part is missing; empty where it is not.")

    @classmethod
    def of(cls, report: MigrationReport) -> "ReportView":
        found = report.progress
        progress = ProgressView(
            enrolled=found.enrolled,
            embedded=found.embedded,
            missing=found.missing,
            lost=found.lost,
            lost_by_reason=found.lost_by_reason,
            not_in_gallery=found.not_in_gallery,
        )
        return cls(
            migration=MigrationView.of(report.migration),
            progress=progress,
            shadow=report.shadow,
            galleries=report.galleries,
            problem=report.problem,
        )


class LossView(BaseModel):
    """An enrolled image of which the candidate makes no template."""

    enrolment_id: str
    reference_id: str
    owner: str
    watchlist_id: str
    reason: str
    detail: str

    @classmethod
    def of(cls, loss: Loss) -> "LossView":
        return cls(
            enrolment_id=loss.enrolment_id,
            reference_id=loss.reference_id,
            owner=loss.owner,
            watchlist_id=loss.watchlist_id,
            reason=loss.reason,
            detail=loss.detail,
        )


class LossPage(BaseModel):
    """By enrolment_id; ask on from the last of a full page."""

    losses: list[LossView]


class FinishAnswer(BaseModel):
    """The finished migration, and how many references stand under the new model."""

    migration: MigrationView
    moved: int


class RetryAnswer(BaseModel):
    """How many images are looked at again."""

    retried: int


class MigrationApi:
    """The routes and what they need. Administrators act; they and supervisors approve; auditors read."""

    def __init__(self, migrate: MigrateModel, audit: EnrolmentAudit, verifier: TokenVerifier) -> None:
        self._migrate = migrate
        self._audit = audit
        self._verifier = verifier

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/model-migrations", tags=["model migrations"])
        caller = Annotated[Principal, Depends(bearer(self._verifier))]
        self._add_reading(router, caller)
        self._add_governing(router, caller)
        self._add_ending(router, caller)
        return router

    def _add_reading(self, router: APIRouter, caller: Any) -> None:
        @router.get("")
        def migrations(principal: caller) -> MigrationList:
            """Every migration of this platform."""
            self._require(principal, _READING)
            return MigrationList(migrations=[MigrationView.of(each) for each in self._migrate.all()])

        @router.get("/{migration_id}")
        def report(migration_id: str, principal: caller) -> ReportView:
            """Where it stands: progress, losses by reason, overlap and rank changes of the shadow searches."""
            self._require(principal, _READING)
            return ReportView.of(self._migrate.report(migration_id))

        @router.get("/{migration_id}/losses")
        def losses(
            migration_id: str,
            principal: caller,
            after: Annotated[str, Query(max_length=36)] = "",
            limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        ) -> LossPage:
            """The images of which the candidate makes no template, each with its reason."""
            self._require(principal, _READING)
            return LossPage(losses=[LossView.of(each) for each in self._migrate.losses(migration_id, after, limit)])

    def _add_governing(self, router: APIRouter, caller: Any) -> None:
        @router.post("", status_code=201)
        def start(body: ReasonBody, principal: caller) -> MigrationView:
            """Begin to embed every enrolled image with the candidate model, beside the one in service."""
            self._require(principal, _ACTING)
            return MigrationView.of(self._migrate.start(principal, body.reason))

        @router.post("/{migration_id}/approvals")
        def approve(migration_id: str, body: Annotated[ApprovalBody, Body()], principal: caller) -> MigrationView:
            """One of two agreements to the switch, by different people on the same evidence."""
            self._require(principal, _APPROVING)
            evidence = body.evidence.encode()
            return MigrationView.of(self._migrate.approve(migration_id, principal, evidence, body.accepted_losses))

        @router.post("/{migration_id}/switch")
        def switch(migration_id: str, principal: caller) -> MigrationView:
            """Answer searches with the candidate from now on."""
            self._require(principal, _ACTING)
            return MigrationView.of(self._migrate.switch(migration_id, principal))

        @router.post("/{migration_id}/rollback")
        def rollback(migration_id: str, body: ReasonBody, principal: caller) -> MigrationView:
            """Answer searches with the former model again, at once."""
            self._require(principal, _ACTING)
            return MigrationView.of(self._migrate.rollback(migration_id, principal, body.reason))

    def _add_ending(self, router: APIRouter, caller: Any) -> None:
        @router.post("/{migration_id}/finish")
        def finish(migration_id: str, principal: caller) -> FinishAnswer:
            """Make the new model the ledger's own. There is no rollback after this."""
            self._require(principal, _ACTING)
            migration, moved = self._migrate.finish(migration_id, principal)
            return FinishAnswer(migration=MigrationView.of(migration), moved=moved)

        @router.post("/{migration_id}/abandon")
        def abandon(migration_id: str, body: ReasonBody, principal: caller) -> MigrationView:
            """Give the candidate up and delete its templates."""
            self._require(principal, _ACTING)
            return MigrationView.of(self._migrate.abandon(migration_id, principal, body.reason))

        @router.post("/{migration_id}/losses/retry")
        def retry(migration_id: str, principal: caller) -> RetryAnswer:
            """Have the lost images looked at again."""
            self._require(principal, _ACTING)
            return RetryAnswer(retried=self._migrate.retry_losses(migration_id, principal))

    def _require(self, principal: Principal, roles: frozenset[str]) -> None:
        if principal.roles.isdisjoint(roles):
            self._audit.record_refusal(new_id(), principal, "route:model-migrations", Forbidden.code)
            raise Forbidden(
                f"This needs the role {' or '.join(sorted(roles))}.", advice="Ask an administrator for such a token."
            )
