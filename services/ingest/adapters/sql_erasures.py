"""Erasures in the ledger's store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from services.ingest.adapters.flag_schema import erase_flags
from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.intents import intent_from_json
from services.ingest.adapters.life_schema import (
    custody_facts,
    enrolment_facts,
    erasures,
    feed_receipts,
    review_decisions,
)
from services.ingest.adapters.migration_schema import forget_other_templates
from services.ingest.adapters.schema import enrolments, open_intents, outbox
from services.ingest.adapters.sql_ledger import next_versions
from services.ingest.adapters.sql_queries import reading
from services.ingest.enrolling.enrolment import EnrolmentState
from services.ingest.life.custody import ReceiptOutcome
from services.ingest.life.erasure import (
    AWAITING_ERASURE,
    CAME_MEANWHILE,
    ERASED,
    OPEN_STATES,
    ErasedRow,
    Erasure,
    ErasureState,
    Tombstone,
    day_of,
)
from services.shared.adapters.image_keys import empty_write_ahead_log
from services.shared.ports.event_log import Event

_WITHDRAWN = EnrolmentState.WITHDRAWN.value
_QUARANTINED = EnrolmentState.QUARANTINED.value
_ACCEPTED = EnrolmentState.ACCEPTED.value
# What may be searched, or is on its way there.
_LIVE = (_ACCEPTED, EnrolmentState.ENROLLED.value)
# PostgreSQL leaves what was changed and deleted in a table's pages until they are cleaned.
_LEFT_IN_PAGES = (
    "enrolments",
    "model_templates",
    "enrolment_facts",
    "custody_facts",
    "review_decisions",
    "flags",
    "flag_references",
)
_IN_ONE_QUERY = 500
# Bare: a person may have withdrawn one with the same word as its reason, and then everything of it is still there.
IS_ERASED = sa.and_(
    enrolments.c.state == _WITHDRAWN, enrolments.c.withdrawal_reason == ERASED, enrolments.c.captured_on == ""
)


class SqlErasures:
    """See services.ingest.life.erasure.ErasureLedger and ErasuresUnderWay."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter) -> None:
        self._engine = engine
        self._committer = committer

    def enrolments_of(self, owner: str, subject_id: str) -> Sequence[tuple[str, str, str]]:
        query = sa.select(enrolments.c.enrolment_id, enrolments.c.watchlist_id, enrolments.c.state).where(
            enrolments.c.owner == owner,
            enrolments.c.state.in_([state.value for state in EnrolmentState]),
            enrolments.c.subject_id == subject_id,
            sa.not_(IS_ERASED),
        )
        with reading(self._engine) as connection:
            return [(row.enrolment_id, row.watchlist_id, row.state) for row in connection.execute(query)]

    def open(self, erasure: Erasure) -> None:
        def work(connection: sa.Connection) -> None:
            connection.execute(sa.insert(erasures).values(_row_of(erasure)))
            _out_of_search(connection, erasure.enrolment_ids)

        self._committer.run(work)

    def unfinished(self) -> Sequence[Erasure]:
        query = sa.select(erasures).where(erasures.c.state.in_(OPEN_STATES)).order_by(erasures.c.erasure_id)
        with reading(self._engine) as connection:
            return [_erasure_of(row) for row in connection.execute(query)]

    def requested_at_ms(self, subjects: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        columns = (erasures.c.owner, erasures.c.subject_id, erasures.c.requested_at_ms)
        query = sa.select(*columns).where(erasures.c.state.in_(OPEN_STATES), erasures.c.is_whole_subject)
        found: dict[tuple[str, str], int] = {}
        with reading(self._engine) as connection:
            for owner, subject_id, moment_ms in connection.execute(query):
                if (owner, subject_id) in subjects:
                    found[owner, subject_id] = max(moment_ms, found.get((owner, subject_id), 0))
        return found

    def is_being_enrolled(self, owner: str, subject_id: str) -> bool:
        subject = f"subject:{owner}/{subject_id}"
        with reading(self._engine) as connection:
            intents = connection.scalars(sa.select(open_intents.c.intent))
            return any(subject in intent_from_json(text).objects for text in intents)

    def latecomers(self, erasure: Erasure) -> Sequence[str]:
        is_before = sa.or_(
            enrolments.c.accepted_at_ms <= erasure.requested_at_ms,
            enrolments.c.captured_on < day_of(erasure.requested_at_ms),
        )
        query = sa.select(enrolments.c.enrolment_id).where(
            enrolments.c.owner == erasure.owner,
            enrolments.c.state.in_([state.value for state in EnrolmentState]),
            enrolments.c.subject_id == erasure.subject_id,
            sa.not_(IS_ERASED),
            is_of_until(erasure.requested_at_ms, is_before),
        )
        with reading(self._engine) as connection:
            return sorted(set(connection.scalars(query)).difference(erasure.enrolment_ids))

    def take_along(self, erasure_id: str, enrolment_ids: Sequence[str]) -> None:
        def work(connection: sa.Connection) -> None:
            is_it = erasures.c.erasure_id == erasure_id
            row = connection.execute(sa.select(erasures).where(is_it).with_for_update()).one()
            known, done = json.loads(row.enrolment_ids), json.loads(row.done)
            more = sorted(set(enrolment_ids).difference(known))
            if row.state != ErasureState.REQUESTED.value or not more:
                return
            values = {
                "enrolment_ids": json.dumps(sorted([*known, *more])),
                "done": json.dumps(done | {CAME_MEANWHILE: done.get(CAME_MEANWHILE, 0) + len(more)}),
            }
            connection.execute(sa.update(erasures).where(is_it).values(values))
            _out_of_search(connection, more)

        self._committer.run(work)

    def find(self, erasure_id: str) -> Erasure | None:
        with reading(self._engine) as connection:
            row = connection.execute(sa.select(erasures).where(erasures.c.erasure_id == erasure_id)).one_or_none()
        return None if row is None else _erasure_of(row)

    def list(self, owner: str, limit: int) -> Sequence[Erasure]:
        query = sa.select(erasures).where(erasures.c.owner == owner).order_by(erasures.c.erasure_id.desc()).limit(limit)
        with reading(self._engine) as connection:
            return [_erasure_of(row) for row in connection.execute(query)]

    def rows(self, erasure: Erasure) -> Sequence[ErasedRow]:
        query = sa.select(
            enrolments.c.enrolment_id,
            enrolments.c.reference_id,
            enrolments.c.version,
            enrolments.c.watchlist_id,
            enrolments.c.image_sha256,
            enrolments.c.model_id,
        ).where(enrolments.c.enrolment_id.in_(erasure.enrolment_ids))
        with reading(self._engine) as connection:
            return [ErasedRow(*row) for row in connection.execute(query)]

    def images_in_use(self, sha256s: Sequence[str], but_for: Sequence[str]) -> frozenset[str]:
        query = sa.select(enrolments.c.image_sha256).where(
            enrolments.c.image_sha256.in_(sha256s),
            enrolments.c.state != _WITHDRAWN,
            enrolments.c.enrolment_id.not_in(but_for),
        )
        with reading(self._engine) as connection:
            return frozenset(connection.scalars(query))

    def move(self, erasure_id: str, state: ErasureState, done: Mapping[str, int] | None = None) -> None:
        values: dict[str, Any] = {"state": state.value}
        if done is not None:
            values["done"] = json.dumps(dict(done))
        query = sa.update(erasures).where(erasures.c.erasure_id == erasure_id).values(values)
        self._committer.run(lambda connection: connection.execute(query).rowcount)

    def erase_rows(self, erasure: Erasure, now_ms: int) -> int:
        def work(connection: sa.Connection) -> int:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            due = connection.scalars(
                sa.select(enrolments.c.enrolment_id)
                .where(enrolments.c.enrolment_id.in_(erasure.enrolment_ids), sa.not_(IS_ERASED))
                .with_for_update()
            ).all()
            _move_rows(connection, due, **_bare(erasure, now_ms))
            connection.execute(sa.delete(enrolment_facts).where(enrolment_facts.c.enrolment_id.in_(due)))
            connection.execute(sa.delete(review_decisions).where(review_decisions.c.enrolment_id.in_(due)))
            whole = (erasure.owner, erasure.subject_id) if erasure.is_whole_subject else None
            if whole is not None:
                connection.execute(sa.delete(custody_facts).where(_facts_of(*whole)))
            forget_other_templates(connection, due)
            erase_flags(connection, erasure.enrolment_ids, whole)
            return len(due)

        count = self._committer.run(work)
        if self._engine.dialect.name == "sqlite":
            empty_write_ahead_log(self._engine)
        else:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(f"VACUUM {', '.join(_LEFT_IN_PAGES)}")
        return count

    def finish(self, erasure_id: str, certificate: str, now_ms: int, events: Sequence[Event]) -> None:
        def work(connection: sa.Connection) -> None:
            finished = {"state": ErasureState.ERASED.value, "certificate": certificate, "finished_at_ms": now_ms}
            is_open = sa.and_(erasures.c.erasure_id == erasure_id, erasures.c.state == ErasureState.ERASING.value)
            if connection.execute(sa.update(erasures).where(is_open).values(finished)).rowcount:
                rows = [
                    {"topic": e.topic, "key": e.key, "value": e.value, "headers": json.dumps(dict(e.headers))}
                    for e in events
                ]
                connection.execute(sa.insert(outbox), rows)

        self._committer.run(work)

    def lift(self, erasure_id: str) -> int:
        def work(connection: sa.Connection) -> int:
            row = connection.execute(
                sa.select(erasures).where(erasures.c.erasure_id == erasure_id).with_for_update()
            ).one()
            if row.state not in (ErasureState.REQUESTED.value, ErasureState.QUARANTINED.value):
                return -1
            others = sa.select(erasures.c.enrolment_ids).where(
                erasures.c.erasure_id != erasure_id,
                erasures.c.owner == row.owner,
                erasures.c.state.in_([state.value for state in OPEN_STATES]),
            )
            also_of = {each for ids in connection.scalars(others) for each in json.loads(ids)}
            held = connection.scalars(
                sa.select(enrolments.c.enrolment_id).where(
                    enrolments.c.enrolment_id.in_(sorted(set(json.loads(row.enrolment_ids)) - also_of)),
                    enrolments.c.state == _QUARANTINED,
                    enrolments.c.reason == AWAITING_ERASURE,
                )
            ).all()
            # A verdict that stood before stands again, and the worker takes it from there.
            _move_rows(connection, held, state=_ACCEPTED, reason="")
            lifted = {"state": ErasureState.LIFTED.value}
            connection.execute(sa.update(erasures).where(erasures.c.erasure_id == erasure_id).values(lifted))
            return len(held)

        return self._committer.run(work)

    def standing(self, tombstones: Sequence[Tombstone]) -> Sequence[tuple[Tombstone, str]]:
        by_key = {(each.owner, each.subject_id, each.image_sha256): each for each in tombstones if each.image_sha256}
        keys = list(by_key)
        columns = (enrolments.c.owner, enrolments.c.subject_id, enrolments.c.image_sha256)
        found: list[tuple[Tombstone, str]] = []
        with reading(self._engine) as connection:
            for start in range(0, len(keys), _IN_ONE_QUERY):
                query = sa.select(enrolments.c.enrolment_id, *columns).where(
                    sa.tuple_(*columns).in_(keys[start : start + _IN_ONE_QUERY]),
                    sa.or_(enrolments.c.state != _WITHDRAWN, enrolments.c.template.is_not(None)),
                )
                found += [
                    (by_key[row.owner, row.subject_id, row.image_sha256], row.enrolment_id)
                    for row in connection.execute(query)
                ]
        return found


def _facts_of(owner: str, subject_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(custody_facts.c.owner == owner, custody_facts.c.subject_id == subject_id)


def is_of_until(until_ms: int, where_no_feed_brought_it: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether an enrolment was captured for an event up to then."""
    brought = sa.select(feed_receipts.c.event_id).where(
        feed_receipts.c.owner == enrolments.c.owner,
        feed_receipts.c.enrolment_id == enrolments.c.enrolment_id,
        feed_receipts.c.outcome != ReceiptOutcome.REFUSED.value,
    )
    return sa.or_(
        brought.where(feed_receipts.c.occurred_at_ms <= until_ms).exists(),
        sa.and_(sa.not_(brought.exists()), where_no_feed_brought_it),
    )


def _out_of_search(connection: sa.Connection, enrolment_ids: Sequence[str]) -> None:
    live = connection.scalars(
        sa.select(enrolments.c.enrolment_id)
        .where(enrolments.c.enrolment_id.in_(enrolment_ids), enrolments.c.state.in_(_LIVE))
        .with_for_update()
    ).all()
    _move_rows(connection, live, state=_QUARANTINED, reason=AWAITING_ERASURE)


def _move_rows(connection: sa.Connection, enrolment_ids: Sequence[str], **values: Any) -> None:
    """Each under a version of its own, so that every copy of the gallery can tell what is newer."""
    if not enrolment_ids:
        return
    versions = next_versions(connection, len(enrolment_ids))
    statement = (
        sa.update(enrolments)
        .where(enrolments.c.enrolment_id == sa.bindparam("of_enrolment"))
        .values(version=sa.bindparam("new_version"), leased_by="", leased_until_ms=0, **values)
    )
    rows = [
        {"of_enrolment": enrolment_id, "new_version": version}
        for enrolment_id, version in zip(enrolment_ids, versions, strict=True)
    ]
    connection.execute(statement, rows)


def _bare(erasure: Erasure, now_ms: int) -> dict[str, Any]:
    return {
        "state": _WITHDRAWN,
        "template": None,
        "reason": "",
        "detail": "",
        "quality_components": "{}",
        "unified_quality": None,
        "inter_eye_px": None,
        "captured_on": "",
        "withdrawn_at_ms": now_ms,
        "withdrawn_by": erasure.person_id,
        "withdrawal_reason": ERASED,
        "settled_at_ms": sa.func.coalesce(enrolments.c.settled_at_ms, now_ms),
        "is_withdrawal_settled": True,
    }


def _row_of(erasure: Erasure) -> dict[str, Any]:
    return {
        "erasure_id": erasure.erasure_id,
        "owner": erasure.owner,
        "subject_id": erasure.subject_id,
        "is_whole_subject": erasure.is_whole_subject,
        "enrolment_ids": json.dumps(list(erasure.enrolment_ids)),
        "reason": erasure.reason,
        "authority": erasure.authority,
        "person_id": erasure.person_id,
        "requested_at_ms": erasure.requested_at_ms,
        "due_at_ms": erasure.due_at_ms,
        "state": erasure.state.value,
        "finished_at_ms": erasure.finished_at_ms,
        "done": json.dumps(dict(erasure.done)),
        "certificate": erasure.certificate,
    }


def _erasure_of(row: sa.Row[Any]) -> Erasure:
    values = dict(row._mapping)
    values["enrolment_ids"] = tuple(json.loads(values["enrolment_ids"]))
    values["state"] = ErasureState(values["state"])
    values["done"] = json.loads(values["done"])
    return Erasure(**values)
