"""The enrolment ledger in SQLite or PostgreSQL: the life of an enrolment from acceptance to settlement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.intents import intent_from_json, intent_json
from services.ingest.adapters.migration_schema import forget_other_templates, under_the_base_model
from services.ingest.adapters.schema import (
    enrolments,
    idempotency_keys,
    ledger_sequence,
    model_provenance,
    open_intents,
    outbox,
)
from services.ingest.adapters.sql_queries import LedgerQueries, key_condition, key_of
from services.ingest.adapters.template_vault import KeptTemplate, TemplateVault
from services.ingest.enrolling.enrolment import (
    Acceptance,
    Decision,
    EnrolmentKey,
    EnrolmentState,
    IdempotencyKey,
    NewEnrolment,
    PendingEnrolment,
    PendingWithdrawal,
    Source,
    Verdict,
)
from services.ingest.ports import OpenIntent
from services.shared.biometric import ModelProvenance
from services.shared.errors import Conflict, NotFound
from services.shared.ports.event_log import Event

ACCEPTED = EnrolmentState.ACCEPTED.value
_PENDING_COLUMNS = (
    enrolments.c.enrolment_id,
    enrolments.c.reference_id,
    enrolments.c.version,
    enrolments.c.watchlist_id,
    enrolments.c.owner,
    enrolments.c.subject_id,
    enrolments.c.image_sha256,
    enrolments.c.model_id,
    enrolments.c.source,
    enrolments.c.crashes,
    enrolments.c.verdict,
    enrolments.c.reason,
    enrolments.c.detail,
    enrolments.c.template,
    enrolments.c.dimension,
    enrolments.c.unified_quality,
    enrolments.c.inter_eye_px,
    enrolments.c.decided_at_ms,
    enrolments.c.traceparent,
)


class SqlLedger(LedgerQueries):
    """See services.ingest.ports.EnrolmentLedger. Writes go through one group committer, reads through the engine."""

    def __init__(
        self, engine: sa.Engine, committer: GroupCommitter, instance: str, vault: TemplateVault | None = None
    ) -> None:
        super().__init__(engine)
        self._vault = vault or TemplateVault()
        self._committer = committer
        self._instance = instance

    # --- acceptance

    def check_idempotency(self, key: IdempotencyKey) -> str | None:
        with self.reading() as connection:
            return _checked_idempotency(connection, key)

    def remember_intents(self, intents: Sequence[OpenIntent], now_ms: int) -> None:
        rows = [
            {
                "enrolment_id": intent.enrolment_id,
                "instance": self._instance,
                "opened_at_ms": now_ms,
                "intent": intent_json(intent),
            }
            for intent in intents
        ]
        self._committer.run(lambda connection: _execute_many(connection, sa.insert(open_intents), rows))

    def abandoned_intents(self, own_before_ms: int, others_before_ms: int, limit: int) -> Sequence[OpenIntent]:
        is_own = sa.and_(open_intents.c.instance == self._instance, open_intents.c.opened_at_ms < own_before_ms)
        query = (
            sa.select(open_intents.c.intent)
            .where(sa.or_(is_own, open_intents.c.opened_at_ms < others_before_ms))
            .order_by(open_intents.c.opened_at_ms)
            .limit(limit)
        )
        with self.reading() as connection:
            return [intent_from_json(text) for text in connection.scalars(query)]

    def forget_intents(self, enrolment_ids: Sequence[str]) -> None:
        query = sa.delete(open_intents).where(open_intents.c.enrolment_id.in_(enrolment_ids))
        self._committer.run(lambda connection: _execute(connection, query))

    def accept(self, new: Sequence[NewEnrolment]) -> Sequence[Acceptance]:
        return self._committer.run(lambda connection: _accept(connection, new))

    # --- work

    def release_claims(self) -> None:
        query = (
            sa.update(enrolments)
            .where(enrolments.c.leased_by == self._instance, enrolments.c.state == ACCEPTED)
            .values(leased_by="", leased_until_ms=0)
        )
        self._committer.run(lambda connection: _execute(connection, query))

    def claim(self, limit: int, now_ms: int, until_ms: int) -> Sequence[PendingEnrolment]:
        free = (
            # The condition is literal, so that SQLite too sees that the partial index of pending rows holds it.
            sa.select(enrolments.c.enrolment_id)
            .where(sa.text("state = 'accepted'"), enrolments.c.leased_until_ms < now_ms)
            .order_by(enrolments.c.version)
            .limit(limit)
        )
        with self.reading() as connection:
            if connection.scalar(free.limit(1)) is None:
                return []  # an idle worker writes nothing
        query = (
            sa.update(enrolments)
            .where(enrolments.c.enrolment_id.in_(free.with_for_update(skip_locked=True)))
            .values(leased_by=self._instance, leased_until_ms=until_ms, attempts=enrolments.c.attempts + 1)
            .returning(*_PENDING_COLUMNS)
        )
        rows = self._committer.run(lambda connection: connection.execute(query).all())
        opened = self._vault.open([KeptTemplate(row.image_sha256, row.dimension, row.template or b"") for row in rows])
        claimed = [_pending(row, template) for row, template in zip(rows, opened, strict=True)]
        return sorted(claimed, key=lambda pending: pending.version)

    def renew_claims(self, until_ms: int) -> None:
        query = (
            sa.update(enrolments)
            .where(sa.text("state = 'accepted'"), enrolments.c.leased_by == self._instance)
            .values(leased_until_ms=until_ms)
        )
        self._committer.run(lambda connection: _execute(connection, query))

    def count_crash(self, enrolment_id: str) -> None:
        query = (
            sa.update(enrolments)
            .where(enrolments.c.enrolment_id == enrolment_id)
            .values(crashes=enrolments.c.crashes + 1)
        )
        self._committer.run(lambda connection: _execute(connection, query))

    def decide(self, decisions: Sequence[tuple[PendingEnrolment, Decision]]) -> Sequence[PendingEnrolment]:
        kept = self._vault.seal(
            [KeptTemplate(p.key.image_sha256, len(d.template) // 4, d.template) for p, d in decisions]
        )
        sealed = {pending.enrolment_id: content for (pending, _), content in zip(decisions, kept, strict=True)}
        return self._committer.run(lambda connection: _decide(connection, decisions, sealed))

    def settle(self, settled: Sequence[tuple[PendingEnrolment, Sequence[Event]]], settled_at_ms: int) -> None:
        self._committer.run(lambda connection: _settle(connection, settled, settled_at_ms))

    # --- withdrawal

    def withdraw(self, enrolment_id: str, person_id: str, reason: str, now_ms: int) -> None:
        self._committer.run(lambda connection: _withdraw(connection, enrolment_id, person_id, reason, now_ms))

    def unsettled_withdrawals(self, limit: int) -> Sequence[PendingWithdrawal]:
        query = (
            sa.select(enrolments)
            .where(sa.text("is_withdrawal_settled = false"))
            .order_by(enrolments.c.version)
            .limit(limit)
        )
        with self.reading() as connection:
            return [_pending_withdrawal(row) for row in connection.execute(query)]

    def settle_withdrawal(self, withdrawal: PendingWithdrawal, events: Sequence[Event]) -> None:
        query = (
            sa.update(enrolments)
            .where(enrolments.c.enrolment_id == withdrawal.enrolment_id, sa.text("is_withdrawal_settled = false"))
            .values(is_withdrawal_settled=True)
        )

        def work(connection: sa.Connection) -> None:
            if connection.execute(query).rowcount:
                _publish(connection, events)

        self._committer.run(work)


def next_versions(connection: sa.Connection, count: int) -> range:
    """The next `count` numbers of the ledger's sequence, in this transaction."""
    query = (
        sa.update(ledger_sequence)
        .where(ledger_sequence.c.id == 1)
        .values(value=ledger_sequence.c.value + count)
        .returning(ledger_sequence.c.value)
    )
    last: int = connection.execute(query).scalar_one()
    return range(last - count + 1, last + 1)


def remember_provenance(connection: sa.Connection, model: ModelProvenance) -> str:
    """The id of a provenance row, made when it is new."""
    values = asdict(model)
    provenance_id = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    row = {"provenance_id": provenance_id, **values}
    connection.execute(insert_ignoring(connection, model_provenance), row)
    return provenance_id


def insert_ignoring(connection: sa.Connection, table: sa.Table) -> Any:
    """An insert that leaves a row alone which is there already; both dialects spell it in the same words."""
    module = postgresql if connection.dialect.name == "postgresql" else sqlite
    return module.insert(table).on_conflict_do_nothing()


def enrolment_row(new: NewEnrolment, version: int) -> dict[str, Any]:
    """A fresh row as accepted."""
    return {
        "enrolment_id": new.enrolment_id,
        "reference_id": new.reference_id,
        "version": version,
        **asdict(new.key),
        "lawful_basis": new.lawful_basis,
        "captured_on": new.captured_on,
        "agreement_reference": new.agreement_reference,
        "source": new.source.value,
        "person_id": new.person_id,
        "force": new.force,
        "state": ACCEPTED,
        "verdict": "",
        "reason": "",
        "detail": "",
        "dimension": 0,
        "licence": "",
        "quality_components": "{}",
        "attempts": 0,
        "crashes": 0,
        "leased_by": "",
        "leased_until_ms": 0,
        "accepted_at_ms": new.accepted_at_ms,
        "expires_at": 0,
        "withdrawn_by": "",
        "withdrawal_reason": "",
        "is_withdrawal_settled": True,
        "traceparent": new.traceparent,
    }


def _execute(connection: sa.Connection, statement: Any) -> None:
    connection.execute(statement)


def _execute_many(connection: sa.Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _publish(connection: sa.Connection, events: Sequence[Event]) -> None:
    rows = [{"topic": e.topic, "key": e.key, "value": e.value, "headers": json.dumps(dict(e.headers))} for e in events]
    _execute_many(connection, sa.insert(outbox), rows)


def _checked_idempotency(connection: sa.Connection, key: IdempotencyKey) -> str | None:
    row = connection.execute(
        sa.select(idempotency_keys.c.request_digest, idempotency_keys.c.enrolment_id).where(
            idempotency_keys.c.scope == key.scope, idempotency_keys.c.key == key.key
        )
    ).one_or_none()
    if row is None:
        return None
    if row.request_digest != key.request_digest:
        raise Conflict(
            "This Idempotency-Key was used for another request.",
            advice="Use a new key for a new request, or send the first one again unchanged.",
            code="idempotency_key_reused",
        )
    return str(row.enrolment_id)


def _accept(connection: sa.Connection, new: Sequence[NewEnrolment]) -> list[Acceptance]:
    new = under_the_base_model(connection, new)
    versions = next_versions(connection, len(new))
    rows = [enrolment_row(item, version) for item, version in zip(new, versions, strict=True)]
    connection.execute(insert_ignoring(connection, enrolments), rows)
    ids = [item.enrolment_id for item in new]
    inserted = set(connection.scalars(sa.select(enrolments.c.enrolment_id).where(enrolments.c.enrolment_id.in_(ids))))
    connection.execute(sa.delete(open_intents).where(open_intents.c.enrolment_id.in_(inserted)))
    answers = []
    for item in new:
        if item.enrolment_id in inserted:
            answer = Acceptance(item.enrolment_id, EnrolmentState.ACCEPTED, is_new=True)
        else:
            answer = _standing(connection, item.key)
        if item.idempotency is not None:
            _remember_idempotency(connection, item.idempotency, answer.enrolment_id, item.accepted_at_ms)
        answers.append(answer)
    return answers


def _standing(connection: sa.Connection, key: EnrolmentKey) -> Acceptance:
    row = connection.execute(sa.select(enrolments.c.enrolment_id, enrolments.c.state).where(key_condition(key))).one()
    return Acceptance(row.enrolment_id, EnrolmentState(row.state), is_new=False)


def _remember_idempotency(connection: sa.Connection, key: IdempotencyKey, enrolment_id: str, now_ms: int) -> None:
    values = {
        "scope": key.scope,
        "key": key.key,
        "request_digest": key.request_digest,
        "enrolment_id": enrolment_id,
        "created_at_ms": now_ms,
    }
    connection.execute(insert_ignoring(connection, idempotency_keys), values)
    _checked_idempotency(connection, key)  # somebody else may have come first, with another request


def _decide(
    connection: sa.Connection, decisions: Sequence[tuple[PendingEnrolment, Decision]], sealed: Mapping[str, bytes]
) -> list[PendingEnrolment]:
    still_accepted = _still_accepted(connection, [pending for pending, _ in decisions])
    provenance_ids: dict[ModelProvenance, str] = {}
    standing, rows = [], []
    for pending, made in decisions:
        if pending.enrolment_id not in still_accepted:
            continue
        key, decision = _under_the_models_own_key(connection, pending, made)
        if decision.model is not None and decision.model not in provenance_ids:
            provenance_ids[decision.model] = remember_provenance(connection, decision.model)
        row = _decision_row(pending, key, decision, provenance_ids)
        rows.append(row | {"template": (sealed[pending.enrolment_id] if decision.template else None) or None})
        standing.append(replace(pending, key=key, decision=decision))
    statement = sa.update(enrolments).where(enrolments.c.enrolment_id == sa.bindparam("of_enrolment"))
    _execute_many(connection, statement, rows)
    return standing


def _under_the_models_own_key(
    connection: sa.Connection, pending: PendingEnrolment, decision: Decision
) -> tuple[EnrolmentKey, Decision]:
    """The key under the model that really made the template, which may have changed since the acceptance."""
    if decision.model is None or decision.model.model_id == pending.key.model_id:
        return pending.key, decision
    key = replace(pending.key, model_id=decision.model.model_id)
    if connection.execute(sa.select(enrolments.c.enrolment_id).where(key_condition(key))).first() is None:
        return key, decision
    duplicate = Decision(
        Verdict.REFUSE,
        decision.decided_at_ms,
        reason="duplicate",
        detail="The model changed after acceptance and the same image stands in the ledger under the new one.",
    )
    return pending.key, duplicate


def _decision_row(
    pending: PendingEnrolment, key: EnrolmentKey, decision: Decision, provenance_ids: Mapping[ModelProvenance, str]
) -> dict[str, Any]:
    model = decision.model
    return {
        "of_enrolment": pending.enrolment_id,
        "model_id": key.model_id,
        "verdict": decision.verdict.value,
        "reason": decision.reason,
        "detail": decision.detail.replace("\x00", ""),  # which PostgreSQL has no text for
        "dimension": model.dimension if model else 0,
        "licence": model.licence if model else "",
        "provenance_id": provenance_ids[model] if model else None,
        "unified_quality": decision.unified_quality,
        "quality_components": json.dumps({name: round(v, 3) for name, v in decision.quality_components.items()}),
        "inter_eye_px": decision.inter_eye_px,
        "decided_at_ms": decision.decided_at_ms,
    }


def _still_accepted(connection: sa.Connection, claimed: Sequence[PendingEnrolment]) -> set[str]:
    """Those that stand as they were claimed. What got a new version meanwhile (its subject was merged) is another's:
    it was freed when that happened and is claimed again as it is now."""
    query = (
        sa.select(enrolments.c.enrolment_id, enrolments.c.version)
        .where(enrolments.c.enrolment_id.in_([each.enrolment_id for each in claimed]), enrolments.c.state == ACCEPTED)
        .with_for_update()
    )
    versions = {row.enrolment_id: row.version for row in connection.execute(query)}
    return {each.enrolment_id for each in claimed if versions.get(each.enrolment_id) == each.version}


def _settle(
    connection: sa.Connection, settled: Sequence[tuple[PendingEnrolment, Sequence[Event]]], settled_at_ms: int
) -> None:
    still_accepted = _still_accepted(connection, [pending for pending, _ in settled])
    rows: list[dict[str, str]] = []
    events: list[Event] = []
    for pending, its_events in settled:
        if pending.decision is None:
            raise ValueError(f"enrolment {pending.enrolment_id} is settled without a decision")
        if pending.enrolment_id in still_accepted:
            rows.append({"of_enrolment": pending.enrolment_id, "new_state": pending.decision.verdict.state.value})
            events.extend(its_events)
    statement = (
        sa.update(enrolments)
        .where(enrolments.c.enrolment_id == sa.bindparam("of_enrolment"))
        .values(state=sa.bindparam("new_state"), settled_at_ms=settled_at_ms, leased_by="", leased_until_ms=0)
    )
    _execute_many(connection, statement, rows)
    _publish(connection, events)


def _withdraw(connection: sa.Connection, enrolment_id: str, person_id: str, reason: str, now_ms: int) -> None:
    state = connection.scalar(
        sa.select(enrolments.c.state).where(enrolments.c.enrolment_id == enrolment_id).with_for_update()
    )
    if state is None:
        raise NotFound("No such enrolment.", advice="Check the enrolment_id.")
    if state == EnrolmentState.WITHDRAWN:
        return
    [version] = next_versions(connection, 1)
    connection.execute(
        sa.update(enrolments)
        .where(enrolments.c.enrolment_id == enrolment_id)
        .values(
            state=EnrolmentState.WITHDRAWN.value,
            version=version,
            template=None,
            withdrawn_at_ms=now_ms,
            withdrawn_by=person_id,
            withdrawal_reason=reason,
            settled_at_ms=sa.func.coalesce(enrolments.c.settled_at_ms, now_ms),
            is_withdrawal_settled=False,
            leased_by="",
            leased_until_ms=0,
        )
    )
    forget_other_templates(connection, [enrolment_id])


def _pending(row: sa.Row[Any], template: bytes) -> PendingEnrolment:
    decision = None
    if row.verdict:
        decision = Decision(
            Verdict(row.verdict),
            row.decided_at_ms,
            reason=row.reason,
            detail=row.detail,
            template=template,
            unified_quality=row.unified_quality,
            inter_eye_px=row.inter_eye_px,
        )
    return PendingEnrolment(
        row.enrolment_id,
        row.reference_id,
        key_of(row),
        row.version,
        Source(row.source),
        row.crashes,
        decision,
        row.traceparent,
    )


def _pending_withdrawal(row: sa.Row[Any]) -> PendingWithdrawal:
    return PendingWithdrawal(
        row.enrolment_id,
        row.reference_id,
        row.watchlist_id,
        row.owner,
        row.subject_id,
        row.version,
        row.withdrawal_reason,
        row.withdrawn_at_ms,
        was_enrolled=row.verdict == Verdict.ENROL,
    )
