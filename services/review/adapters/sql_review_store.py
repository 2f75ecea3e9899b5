"""Casework in a relational store, through SQLAlchemy: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from services.review.adapters.schema import (
    cases,
    examinations,
    idempotency_keys,
    numbers,
    open_acts,
    pictures,
    trainings,
)
from services.review.model import Case, Examination, Training
from services.review.ports import CaseFilter, OpenAct, Settlement
from services.shared.database import AlreadyStored, one_writer, transaction
from services.shared.errors import AuditUnavailable, Conflict
from services.shared.ids import new_id
from services.shared.people import is_same_person, one_spelling

_CASE = TypeAdapter(Case)
_EXAMINATION = TypeAdapter(Examination)
_TRAINING = TypeAdapter(Training)


class SqlReviewStore:
    """ReviewStore on one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writing = one_writer(engine)

    def add(
        self,
        case: Case,
        idempotency_key: str | None = None,
        fingerprint: str = "",
        settles: Settlement | None = None,
    ) -> Case | None:
        try:
            with self._writing, self._transaction() as connection:
                connection.execute(sa.insert(cases), _case_row(case))
                _hold_pictures(connection, case)
                if idempotency_key is not None:
                    connection.execute(
                        sa.insert(idempotency_keys),
                        {
                            "force": case.force,
                            "person_id": case.requested_by,
                            "key": idempotency_key,
                            "fingerprint": fingerprint,
                            "request_id": case.request_id,
                        },
                    )
                _settle(connection, settles)
        except AlreadyStored as error:
            return self._earlier(case, idempotency_key or "", fingerprint, error)
        return None

    def save(self, case: Case, *changed: Examination, settles: Settlement | None = None) -> Case:
        saved = replace(case, version=case.version + 1)
        try:
            with self._writing, self._transaction() as connection:
                for examination in changed:
                    _put_examination(connection, examination)
                _put_case(connection, saved)
                _settle(connection, settles)
        except (AlreadyStored, _Outdated) as error:
            raise self._changed(case.request_id) from error
        return saved

    def save_examination(self, examination: Examination, settles: Settlement | None = None) -> Examination:
        try:
            with self._writing, self._transaction() as connection:
                _put_examination(connection, examination)
                _settle(connection, settles)
        except (AlreadyStored, _Outdated) as error:
            raise self._changed(examination.request_id) from error
        return replace(examination, version=examination.version + 1)

    def find(self, request_id: str) -> Case | None:
        with self._transaction() as connection:
            found = connection.scalar(sa.select(cases.c.document).where(cases.c.request_id == request_id))
        return None if found is None else _CASE.validate_json(found)

    def examinations(self, request_id: str) -> Sequence[Examination]:
        query = sa.select(examinations.c.document).where(examinations.c.request_id == request_id)
        with self._transaction() as connection:
            found = connection.scalars(query.order_by(examinations.c.ordinal)).all()
        return [_EXAMINATION.validate_json(document) for document in found]

    def list(self, wanted: CaseFilter) -> Sequence[Case]:
        query = sa.select(cases.c.document).where(cases.c.force == wanted.force)
        if wanted.states:
            query = query.where(cases.c.state.in_(sorted(state.value for state in wanted.states)))
        if wanted.requested_by is not None:
            query = query.where(cases.c.requested_by == wanted.requested_by)
        order = (cases.c.due_at.desc(), cases.c.number.desc()) if wanted.is_newest else (cases.c.due_at, cases.c.number)
        with self._transaction() as connection:
            found = connection.scalars(query.order_by(*order).limit(wanted.limit)).all()
        return [_CASE.validate_json(document) for document in (reversed(found) if wanted.is_newest else found)]

    def examinations_of_force(self, force: str) -> Sequence[Examination]:
        query = sa.select(examinations.c.document).where(examinations.c.force == force)
        with self._transaction() as connection:
            found = connection.scalars(query.order_by(examinations.c.started_at)).all()
        return [_EXAMINATION.validate_json(document) for document in found]

    def is_held_elsewhere(self, sha256: str, request_id: str) -> bool:
        query = sa.select(sa.literal(1)).where(pictures.c.sha256 == sha256, pictures.c.request_id != request_id)
        with self._transaction() as connection:
            return connection.scalar(query.limit(1)) is not None

    def next_number(self, force: str, year: int) -> int:
        try:
            return self._raised_number(force, year)
        except AlreadyStored:  # another process began the year at the same moment
            return self._raised_number(force, year)

    def _raised_number(self, force: str, year: int) -> int:
        of_year = sa.and_(numbers.c.force == force, numbers.c.year == year)
        with self._writing, self._transaction() as connection:
            raised = connection.execute(sa.update(numbers).where(of_year).values(last=numbers.c.last + 1))
            if raised.rowcount == 0:
                connection.execute(sa.insert(numbers), {"force": force, "year": year, "last": 1})
            return int(connection.execute(sa.select(numbers.c.last).where(of_year)).scalar_one())

    def put_training(self, training: Training, settles: Settlement | None = None) -> None:
        row = {
            "training_id": new_id(),
            "force": training.force,
            "person_id": training.person_id,
            "document": _TRAINING.dump_json(training),
        }
        with self._writing, self._transaction() as connection:
            connection.execute(sa.insert(trainings), row)
            _settle(connection, settles)

    def training(self, force: str, person_id: str) -> Training | None:
        found = [one for one in self._trainings(force) if is_same_person(one.person_id, person_id)]
        return found[-1] if found else None

    def trainings(self, force: str) -> Sequence[Training]:
        newest = {one_spelling(training.person_id): training for training in self._trainings(force)}
        return [newest[name] for name in sorted(newest)]

    def open_act(self, act: OpenAct) -> None:
        row = {
            "activity_id": act.activity_id,
            "outcome_entry_id": act.outcome_entry_id,
            "opened_at": act.opened_at.astimezone(UTC),
            "entry": act.entry,
        }
        with self._writing, self._transaction() as connection:
            connection.execute(sa.insert(open_acts), row)

    def close_act(self, activity_id: str) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(sa.delete(open_acts).where(open_acts.c.activity_id == activity_id))

    def settle_act(self, settlement: Settlement) -> bool:
        with self._writing, self._transaction() as connection:
            return _is_settled(connection, settlement)

    def open_acts(self, before: datetime, limit: int) -> Sequence[OpenAct]:
        query = sa.select(open_acts).where(open_acts.c.opened_at < before.astimezone(UTC))
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(open_acts.c.opened_at).limit(limit)).all()
        return [OpenAct(row.activity_id, row.outcome_entry_id, _utc(row.opened_at), row.entry) for row in rows]

    def _trainings(self, force: str) -> Sequence[Training]:
        query = sa.select(trainings.c.document).where(trainings.c.force == force)
        with self._transaction() as connection:
            found = connection.scalars(query.order_by(trainings.c.training_id)).all()
        return [_TRAINING.validate_json(document) for document in found]

    def _earlier(self, case: Case, key: str, fingerprint: str, error: AlreadyStored) -> Case:
        """The case that the same person's key stands for."""
        query = sa.select(idempotency_keys.c.fingerprint, cases.c.document).join(
            cases, cases.c.request_id == idempotency_keys.c.request_id
        )
        mine = sa.and_(
            idempotency_keys.c.force == case.force,
            idempotency_keys.c.person_id == case.requested_by,
            idempotency_keys.c.key == key,
        )
        with self._transaction() as connection:
            row = connection.execute(query.where(mine)).one_or_none()
        if row is None:
            raise error
        if row.fingerprint != fingerprint:
            raise Conflict(
                "This Idempotency-Key was used for another request.",
                advice="Use a new key for a new request; the same key only to send the same request again.",
                code="idempotency_key_reused",
            ) from error
        return _CASE.validate_json(row.document)

    def _changed(self, request_id: str) -> Conflict:
        standing = self.find(request_id)
        state = standing.state.value if standing is not None else "unknown"
        return Conflict(
            f"Somebody else was quicker: the case is {state.replace('_', ' ')} now. Nothing of yours was stored.",
            advice="Look at it again; what you entered is still yours to send again.",
            code="changed_meanwhile",
            context={"state": state, "version": standing.version if standing is not None else 0},
        )

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The record of casework cannot be used.", "review")


class _Outdated(Exception):
    """Another version is stored than the one that was read."""


def _settle(connection: sa.Connection, settlement: Settlement | None) -> None:
    """Raises AuditUnavailable, which undoes the transaction: the log says of this act that nobody knows its end."""
    if settlement is not None and not _is_settled(connection, settlement):
        raise AuditUnavailable("This took too long and was given up; nothing was stored.", advice="Do it again.")


def _is_settled(connection: sa.Connection, settlement: Settlement) -> bool:
    as_found = sa.and_(open_acts.c.activity_id == settlement.activity_id, open_acts.c.entry == settlement.before)
    return connection.execute(sa.update(open_acts).where(as_found).values(entry=settlement.after)).rowcount == 1


def _put_case(connection: sa.Connection, saved: Case) -> None:
    row = _case_row(saved)
    done = connection.execute(
        sa.update(cases)
        .where(cases.c.request_id == saved.request_id, cases.c.version == saved.version - 1)
        .values(state=row["state"], version=row["version"], document=row["document"])
    )
    if done.rowcount != 1:
        raise _Outdated
    _hold_pictures(connection, saved)


def _hold_pictures(connection: sa.Connection, case: Case) -> None:
    mine = pictures.c.request_id == case.request_id
    held, wanted = set(connection.scalars(sa.select(pictures.c.sha256).where(mine))), case.pictures()
    if gone := held - wanted:
        connection.execute(sa.delete(pictures).where(mine, pictures.c.sha256.in_(sorted(gone))))
    if new := wanted - held:
        rows = [{"request_id": case.request_id, "sha256": sha256} for sha256 in sorted(new)]
        connection.execute(sa.insert(pictures), rows)


def _put_examination(connection: sa.Connection, examination: Examination) -> None:
    saved = replace(examination, version=examination.version + 1)
    document = _EXAMINATION.dump_json(saved)
    if examination.version == 0:
        row = {
            "examination_id": saved.examination_id,
            "request_id": saved.request_id,
            "force": saved.force,
            "ordinal": saved.ordinal,
            "examiner": saved.examiner,
            "version": saved.version,
            "started_at": saved.started_at.astimezone(UTC),
            "document": document,
        }
        connection.execute(sa.insert(examinations), row)
        return
    done = connection.execute(
        sa.update(examinations)
        .where(
            examinations.c.examination_id == examination.examination_id,
            examinations.c.version == examination.version,
        )
        .values(version=saved.version, document=document)
    )
    if done.rowcount != 1:
        raise _Outdated


def _case_row(case: Case) -> dict[str, Any]:
    return {
        "request_id": case.request_id,
        "number": case.number,
        "force": case.force,
        "state": case.state.value,
        "version": case.version,
        "requested_by": case.requested_by,
        "due_at": case.due_at.astimezone(UTC),
        "document": _CASE.dump_json(case),
    }


def _utc(moment: datetime) -> datetime:
    """SQLite gives back what was stored without its zone, which is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
