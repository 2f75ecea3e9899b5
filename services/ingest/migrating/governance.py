"""The use cases of a migration: start, approve, switch, roll back, finish, abandon. Each is in the audit log before it
counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson
import structlog

from services.ingest.migrating.embeds import Embeds
from services.ingest.migrating.migration import (
    Approval,
    Loss,
    MigrationLedger,
    MigrationState,
    ModelMigration,
    OtherTemplates,
    Progress,
    Step,
)
from services.ingest.models import CurrentModel
from services.rpc.auditing import platform_principal
from services.rpc.open_acts import OpenAct, OpenActs, Settled
from services.rpc.v1 import audit_pb2, migration_pb2
from services.shared.clock import Clock
from services.shared.errors import Conflict, Forbidden, InvalidRequest, LikenessError, NotFound
from services.shared.ids import new_id
from services.shared.people import is_same_person
from services.shared.tokens import Principal

ACTIVITY = "model_migration"
APPROVERS = 2
MAX_TEXT = 200
_START, _ABANDON, _RETRY = "start", "abandon", "retry_losses"
# Leaves no step in the ledger.
_WITHOUT_STEP = frozenset({_RETRY})


class ServedModels(Protocol):
    """`services.rpc.migration_clients.ServedModelsClient`."""

    def follow(self) -> migration_pb2.ServedModels: ...

    def shadow_report(self, migration_id: str) -> bytes: ...


class KeepsMigrations(MigrationLedger, Protocol):
    """`services.ingest.adapters.sql_migrations.SqlMigrations`."""

    def keep_evidence(self, migration_id: str, sha256: str, document: str) -> None: ...


class KeepsTemplates(OtherTemplates, Protocol):
    """`services.ingest.adapters.sql_model_templates.SqlModelTemplates`."""

    def forget(self, model_id: str) -> int: ...


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """All that approvers are to know. `shadow` is what the shadow searches came to; empty while search is away."""

    migration: ModelMigration
    progress: Progress
    shadow: Mapping[str, Any]
    galleries: Sequence[Mapping[str, Any]]
    problem: str = ""


class MigrateModel:
    """Governs migrations; one is open at a time. Nothing here compares templates."""

    def __init__(
        self,
        *,
        migrations: KeepsMigrations,
        templates: KeepsTemplates,
        embeds: Embeds,
        model: CurrentModel,
        served: ServedModels,
        acts: OpenActs,
        clock: Clock,
        min_shadow_searches: int,
    ) -> None:
        self._migrations = migrations
        self._templates = templates
        self._embeds = embeds
        self._model = model
        self._served = served
        self._acts = acts
        self._clock = clock
        self._min_shadow_searches = min_shadow_searches

    # --- reading

    def find(self, migration_id: str) -> ModelMigration:
        found = next((each for each in self._migrations.all() if each.migration_id == migration_id), None)
        if found is None:
            raise NotFound("No such migration.", advice="GET /v1/model-migrations lists them.")
        return found

    def all(self) -> Sequence[ModelMigration]:
        return self._migrations.all()

    def report(self, migration_id: str) -> MigrationReport:
        """Raises NotFound, DependencyUnavailable (the ledger); what search does not say is left out and told."""
        migration = self.find(migration_id)
        progress = self._templates.progress(migration.to_model_id)
        try:
            shadow = orjson.loads(self._served.shadow_report(migration_id))
            galleries = [_gallery(each) for each in self._served.follow().galleries]
        except LikenessError as error:
            return MigrationReport(migration, progress, {}, [], error.detail)
        return MigrationReport(migration, progress, shadow, galleries)

    def losses(self, migration_id: str, after: str, limit: int) -> Sequence[Loss]:
        return self._templates.losses(self.find(migration_id).to_model_id, after, limit)

    # --- acting

    def start(self, principal: Principal, reason: str) -> ModelMigration:
        """Begin to embed every enrolled image with the candidate model that runs beside the one in service.

        Raises InvalidRequest, Conflict (one is open; no candidate runs), DependencyUnavailable, AuditUnavailable.
        """
        _check_text("reason", reason)
        base = self._model.refresh().model_id
        candidate = self._embeds.candidate(base)
        step = Step(_START, principal.person_id, self._now_ms())
        migration = ModelMigration(
            new_id(), base, candidate.model_id, MigrationState.EMBEDDING, reason, (), (step,)
        )  # fmt: skip
        with self._audited(_START, migration, principal, {"reason": reason}):
            self._migrations.open(migration)
        self._follow()
        return migration

    def note_embedded(self) -> None:
        """Called when nothing is left to embed: shadow searches may begin to count."""
        migration = self._migrations.current()
        if migration is None or migration.state is not MigrationState.EMBEDDING:
            return
        progress = self._templates.progress(migration.to_model_id)
        if not progress.is_complete:
            return
        facts = {"embedded": str(progress.embedded), "lost": str(progress.lost)}
        principal = platform_principal("ingest")
        with self._audited("embedded", migration, principal, facts):
            self._move(migration, MigrationState.SHADOWING, "embedded", principal)
        self._follow()

    def approve(self, migration_id: str, principal: Principal, evidence: bytes, accepted_losses: int) -> ModelMigration:
        """One of the two agreements that a switch needs, by different people, on the same evidence.

        `evidence`: the `evaluation.json` that `likeness evaluate` wrote with the candidate model. `accepted_losses`:
        how many references the approver accepts to lose; it must be the number that the report tells.
        Raises InvalidRequest, Conflict, Forbidden (the same person again), AuditUnavailable, DependencyUnavailable.
        """
        migration = self._in_state(migration_id, MigrationState.SHADOWING)
        sha256 = hashlib.sha256(evidence).hexdigest()
        document = _checked_evidence(evidence, migration)
        lost = self._require_complete(migration).lost
        if accepted_losses != lost:
            raise Conflict(
                f"{lost} references would be lost to the new model, not {accepted_losses}.",
                advice="Read the list of losses, then approve with that number.",
                code="losses_differ",
            )
        shadow = self._require_shadow(migration)
        others = [each for each in migration.approvals if each.accepted_losses == lost]
        _require_other_person(others, principal, sha256)
        approval = Approval(principal.person_id, principal.force, self._now_ms(), sha256, lost)
        approvals = (*others, approval)
        state = MigrationState.APPROVED if len(approvals) >= APPROVERS else MigrationState.SHADOWING
        facts = {
            "evidence_sha256": sha256,
            "accepted_losses": str(lost),
            "shadow_report_sha256": hashlib.sha256(shadow).hexdigest(),
        }
        with self._audited("approve", migration, principal, facts):
            self._migrations.keep_evidence(migration_id, sha256, document)
            return self._move(replace(migration, approvals=approvals), state, "approve", principal)

    def switch(self, migration_id: str, principal: Principal) -> ModelMigration:
        """From now on searches are answered with the candidate. Those under way end with the model they began with.

        Raises Conflict (not approved; not everything embedded; more losses than were accepted; the candidate's gallery
        is not whole), DependencyUnavailable, AuditUnavailable.
        """
        migration = self._in_state(migration_id, MigrationState.APPROVED)
        progress = self._require_complete(migration)
        accepted = min(approval.accepted_losses for approval in migration.approvals)
        if progress.lost > accepted:
            raise Conflict(
                f"{progress.lost} references would be lost, {accepted} were accepted.",
                advice="Abandon the migration, or roll back to have it approved anew.",
                code="losses_differ",
            )
        self._require_whole(migration)
        facts = {"evidence_sha256": migration.approvals[0].evidence_sha256, "lost": str(progress.lost)}
        with self._audited("switch", migration, principal, facts):
            moved = self._move(migration, MigrationState.SWITCHED, "switch", principal)
            self._follow()
        return moved

    def rollback(self, migration_id: str, principal: Principal, reason: str) -> ModelMigration:
        """Searches are answered with the former model again, at once: its gallery was kept up all the time. A further
        switch needs two new approvals. Approvals that have not led to a switch are taken back likewise."""
        _check_text("reason", reason)
        states = (MigrationState.SWITCHED, MigrationState.APPROVED, MigrationState.SHADOWING)
        migration = self._in_state(migration_id, *states)
        with self._audited("rollback", migration, principal, {"reason": reason}):
            moved = self._move(replace(migration, approvals=()), MigrationState.SHADOWING, "rollback", principal)
            self._follow()
        return moved

    def finish(self, migration_id: str, principal: Principal) -> tuple[ModelMigration, int]:
        """The new model becomes the ledger's own; how many references moved. From here there is no rollback, but a
        migration back. Raises Conflict, AuditUnavailable, DependencyUnavailable."""
        migration = self._in_state(migration_id, MigrationState.SWITCHED)
        progress = self._require_complete(migration)
        step = Step("finish", principal.person_id, self._now_ms())
        done = replace(migration, state=MigrationState.FINISHED, steps=(*migration.steps, step))
        with self._audited("finish", migration, principal, {"lost": str(progress.lost)}):
            count = self._migrations.finish(done)
        self._model.refresh()
        self._follow()
        return done, count

    def abandon(self, migration_id: str, principal: Principal, reason: str) -> ModelMigration:
        """Give the candidate up; its templates are deleted. Not while searches are answered with it."""
        _check_text("reason", reason)
        states = (MigrationState.EMBEDDING, MigrationState.SHADOWING, MigrationState.APPROVED)
        migration = self._in_state(migration_id, *states)
        with self._audited(_ABANDON, migration, principal, {"reason": reason}):
            moved = self._move(migration, MigrationState.ABANDONED, _ABANDON, principal)
            self._templates.forget(migration.to_model_id)
        self._follow()
        return moved

    def retry_losses(self, migration_id: str, principal: Principal) -> int:
        """Have the lost images looked at again, after whatever was in the way has been put right; how many."""
        states = (MigrationState.EMBEDDING, MigrationState.SHADOWING, MigrationState.SWITCHED)
        migration = self._in_state(migration_id, *states)
        with self._audited(_RETRY, migration, principal, {}):
            return self._templates.retry_losses(migration.to_model_id)

    def settle(self, act: OpenAct) -> Settled:
        """What became of a step that was cut short, by the steps that the ledger has. Where losses were to be looked at
        again nobody can know. An abandoned candidate's templates go now. Raises DependencyUnavailable."""
        name, before = act.details.get("step", ""), act.details.get("steps_before", "")
        if name in _WITHOUT_STEP or not before:
            return Settled(None)
        migration = self._of_act(act)
        steps = migration.steps if migration is not None else ()
        at = int(before)
        is_done = len(steps) > at and (steps[at].name, steps[at].person_id) == (name, act.principal.person_id)
        if migration is not None and is_done and name == _ABANDON:
            self._forget_unless_open(migration.to_model_id)
        return Settled(is_done)

    def _of_act(self, act: OpenAct) -> ModelMigration | None:
        return next((each for each in self._migrations.all() if _name(each) in act.objects), None)

    def _forget_unless_open(self, model_id: str) -> None:
        current = self._migrations.current()
        if current is None or current.to_model_id != model_id:
            self._templates.forget(model_id)

    # --- rules

    def _in_state(self, migration_id: str, *states: MigrationState) -> ModelMigration:
        migration = self.find(migration_id)
        if migration.state not in states:
            raise Conflict(
                f"The migration is {migration.state.value}; this needs {' or '.join(each.value for each in states)}.",
                advice="Look at its state: likeness model migration status.",
                code="migration_state",
            )
        return migration

    def _require_complete(self, migration: ModelMigration) -> Progress:
        progress = self._templates.progress(migration.to_model_id)
        if not progress.is_complete:
            raise Conflict(
                f"{progress.missing} references are not embedded yet, {progress.not_in_gallery} not in the gallery.",
                advice="Wait until the report says that none is missing.",
                code="migration_incomplete",
            )
        return progress

    def _require_shadow(self, migration: ModelMigration) -> bytes:
        report = self._served.shadow_report(migration.migration_id)
        made = int(orjson.loads(report).get("searches", 0))
        if made < self._min_shadow_searches:
            raise Conflict(
                f"{made} shadow searches were made; {self._min_shadow_searches} are needed before anybody approves.",
                advice="Let searches go on for a while, then read the report.",
                code="too_few_shadow_searches",
            )
        return report

    def _require_whole(self, migration: ModelMigration) -> None:
        """The candidate's gallery is ready and holds what the ledger has for it."""
        galleries = {each.model_id: each for each in self._served.follow().galleries}
        new, old = galleries.get(migration.to_model_id), galleries.get(migration.from_model_id)
        if new is None or old is None or new.state != "ready":
            why = new.obstacle if new is not None else "search has none of that model"
            raise Conflict(f"The candidate's gallery is not ready: {why}.", advice="Wait.", code="gallery_not_ready")
        lost = self._templates.lost_by_watchlist(migration.to_model_id)
        for watchlist_id, count in old.searchable_by_watchlist.items():
            expected = count - lost.get(watchlist_id, 0)
            held = new.searchable_by_watchlist.get(watchlist_id, 0)
            if held < expected:
                raise Conflict(
                    f"The candidate's gallery holds {held} references of {watchlist_id}, {expected} are expected.",
                    advice="Wait a moment; reconcile the gallery where it stays so.",
                    code="gallery_not_ready",
                )

    # --- doing

    def _move(
        self, migration: ModelMigration, state: MigrationState, step: str, principal: Principal
    ) -> ModelMigration:
        steps = (*migration.steps, Step(step, principal.person_id, self._now_ms()))
        moved = replace(migration, state=state, steps=steps)
        self._migrations.move(moved, only_from=migration.state)
        return moved

    def _follow(self) -> None:
        """Tell search now. Where it is away it finds out by itself within a second of being back."""
        try:
            self._served.follow()
        except LikenessError as error:
            structlog.get_logger().warning("search_follows_later", code=error.code, detail=error.detail)

    @contextmanager
    def _audited(
        self, step: str, migration: ModelMigration, principal: Principal, facts: Mapping[str, str]
    ) -> Iterator[None]:
        act = OpenAct(
            activity=ACTIVITY,
            operation=audit_pb2.ALTERATION,
            principal=principal,
            objects=[
                _name(migration),
                f"model:{migration.from_model_id}",
                f"model:{migration.to_model_id}",
            ],
            details={"step": step, "steps_before": str(0 if step == _START else len(migration.steps)), **facts},
        )
        with self._acts.under_way(act):
            yield
            self._acts.end(act, audit_pb2.DONE, act.details)

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _name(migration: ModelMigration) -> str:
    return f"migration:{migration.migration_id}"


def _gallery(found: migration_pb2.ModelGallery) -> dict[str, Any]:
    return {
        "model_id": found.model_id,
        "state": found.state,
        "store": found.store,
        "searchable_by_watchlist": dict(found.searchable_by_watchlist),
        "obstacle": found.obstacle,
    }


def _check_text(name: str, text: str) -> None:
    if not text.strip() or len(text) > MAX_TEXT or not text.isprintable():
        raise InvalidRequest(
            f"`{name}` is empty, longer than {MAX_TEXT} characters or not printable.", advice="Say why, in a line."
        )


def _checked_evidence(evidence: bytes, migration: ModelMigration) -> str:
    """The document as text. It has to be a measurement of the candidate model."""
    try:
        document = orjson.loads(evidence)
        text = evidence.decode()
    except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise _not_evidence("it is not JSON") from error
    model = document.get("model") if isinstance(document, dict) else None
    measured = model.get("model_id") if isinstance(model, dict) else None
    if measured != migration.to_model_id:
        raise _not_evidence(f"it was measured with {measured or 'no model that it names'}, not {migration.to_model_id}")
    return text


def _not_evidence(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"This is no evidence for the switch: {why}.",
        advice="Give the evaluation.json that `likeness evaluate` writes on a platform with the candidate model.",
    )


def _require_other_person(others: Sequence[Approval], principal: Principal, sha256: str) -> None:
    if any(is_same_person(each.person_id, principal.person_id) for each in others):
        raise Forbidden("You have approved already.", advice="A second person has to.", code="same_person")
    if any(each.evidence_sha256 != sha256 for each in others):
        raise Conflict(
            "The first approval names other evidence.",
            advice="Approve on the same file, or roll the approval back.",
            code="evidence_differs",
        )
