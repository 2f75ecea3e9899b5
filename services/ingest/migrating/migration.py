"""What a model migration is: its states, its approvals, its losses, and the ports to where they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from services.ingest.enrolling.enrolment import PendingEnrolment
from services.shared.biometric import ModelProvenance


class MigrationState(StrEnum):
    """embedding → shadowing → approved → switched → finished.

    From `switched` a rollback leads to `shadowing`, where approvals have to be given anew. `abandoned` from anywhere
    before the end, but not while the candidate is in service.
    """

    EMBEDDING = "embedding"
    SHADOWING = "shadowing"
    APPROVED = "approved"
    SWITCHED = "switched"
    FINISHED = "finished"
    ABANDONED = "abandoned"

    @property
    def is_open(self) -> bool:
        return self not in {MigrationState.FINISHED, MigrationState.ABANDONED}


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's agreement to the switch: on which evidence, and how many losses that person accepts."""

    person_id: str
    force: str
    approved_at_ms: int
    evidence_sha256: str
    accepted_losses: int


@dataclass(frozen=True, slots=True)
class Step:
    """What was done, by whom and when; the audit log has the same with its proofs."""

    name: str
    person_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class ModelMigration:
    """From the model in service to a candidate. Times are milliseconds since 1970 UTC."""

    migration_id: str
    from_model_id: str
    to_model_id: str
    state: MigrationState
    reason: str
    approvals: tuple[Approval, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def serving_model_id(self) -> str:
        is_new = self.state in {MigrationState.SWITCHED, MigrationState.FINISHED}
        return self.to_model_id if is_new else self.from_model_id


@dataclass(frozen=True, slots=True)
class Progress:
    """Enrolled references of the base model: how many have a template of the candidate, or are lost to it."""

    enrolled: int
    embedded: int
    lost_by_reason: Mapping[str, int] = field(default_factory=dict)
    # Embedded, but not acknowledged by the candidate's gallery yet.
    not_in_gallery: int = 0

    @property
    def lost(self) -> int:
        return sum(self.lost_by_reason.values())

    @property
    def missing(self) -> int:
        return max(0, self.enrolled - self.embedded - self.lost)

    @property
    def is_complete(self) -> bool:
        return not self.missing and not self.not_in_gallery


@dataclass(frozen=True, slots=True)
class Loss:
    """An enrolled image of which the candidate model makes no template, by name of the reason."""

    enrolment_id: str
    reference_id: str
    owner: str
    watchlist_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class OtherTemplate:
    """What another model made of an enrolled image: a template (float32 little endian), or the reason for none."""

    enrolment_id: str
    image_sha256: str
    model: ModelProvenance
    template: bytes = b""
    unified_quality: float | None = None
    loss_reason: str = ""
    loss_detail: str = ""


class MigrationLedger(Protocol):
    """Migrations in the ledger's store. Durable when it returns; all raise DependencyUnavailable."""

    def current(self) -> ModelMigration | None:
        """The open migration, else the latest that finished."""
        ...

    def all(self) -> Sequence[ModelMigration]:
        """Newest first."""
        ...

    def open(self, migration: ModelMigration) -> None:
        """Raises Conflict when one is open."""
        ...

    def move(self, migration: ModelMigration, *, only_from: MigrationState) -> None:
        """Write its new state and approvals. Raises Conflict when it stands elsewhere by now."""
        ...

    def finish(self, migration: ModelMigration) -> int:
        """The candidate's templates become the ledger's own, the former ones are kept for searches of then; what was
        lost is quarantined. One transaction. How many references moved."""
        ...


class OtherTemplates(Protocol):
    """Templates beside the ledger's own. Durable when it returns; all raise DependencyUnavailable."""

    def without(self, model_id: str, after: str, limit: int) -> Sequence[PendingEnrolment]:
        """Enrolled references whose own template is of another model and that have none of this one, by
        enrolment_id from `after` on."""
        ...

    def missing_of(self, enrolment_ids: Sequence[str], model_id: str) -> Sequence[PendingEnrolment]:
        """Of these enrolments those, being settled or enrolled, that `without` would name."""
        ...

    def keep(self, templates: Sequence[OtherTemplate], now_ms: int) -> None:
        """What belongs to a reference that was withdrawn meanwhile is not kept."""
        ...

    def retry_losses(self, model_id: str) -> int:
        """Forget the losses, so that the images are looked at again; how many."""
        ...

    def to_put(self, model_id: str, enrolment_ids: Sequence[str] | None, limit: int) -> Sequence[PlacedTemplate]:
        """Templates that the model's gallery has not acknowledged, or those of these enrolments."""
        ...

    def note_put(self, enrolment_ids: Sequence[str], model_id: str) -> None:
        """The model's gallery has acknowledged them."""
        ...

    def progress(self, model_id: str) -> Progress:
        """How far the model's templates are, counted in references."""
        ...

    def losses(self, model_id: str, after: str, limit: int) -> Sequence[Loss]:
        """References that the model could not take, with the reason, by enrolment_id from `after` on."""
        ...

    def lost_by_watchlist(self, model_id: str) -> Mapping[str, int]:
        """How many the model could not take, by watchlist."""
        ...


@dataclass(frozen=True, slots=True)
class PlacedTemplate:
    """A template as a gallery takes it."""

    enrolment_id: str
    reference_id: str
    version: int
    watchlist_id: str
    owner: str
    subject_id: str
    image_sha256: str
    expires_at: int
    template: bytes
