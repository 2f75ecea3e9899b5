"""Flags in the ledger's store."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from services.ingest.adapters.flag_schema import flag_checks, flag_references, flags
from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.life_schema import enrolment_facts
from services.ingest.adapters.schema import enrolments, ledger_sequence
from services.ingest.adapters.sql_ledger import insert_ignoring
from services.ingest.adapters.sql_queries import reading
from services.ingest.adapters.template_vault import KeptTemplate, TemplateVault
from services.ingest.enrolling.enrolment import EnrolmentState, Source
from services.ingest.flags.model import (
    CheckedReference,
    Flag,
    FlagFilter,
    FlaggedReference,
    FlagKind,
    FlagState,
    Page,
)

_ENROLLED = EnrolmentState.ENROLLED.value
# A reference that goes through settlement again, after a merge, still stands.
_STANDING = (_ENROLLED, EnrolmentState.ACCEPTED.value)
_MOST_OWN = 50
# Turned further than this (100 cos² of the angle), a face is not like the same face from the front.
_MIN_YAW_SCORE = 50.0
_FROM_THE_SIDE = ("right_profile", "left_profile")

_ROW = (
    enrolments.c.enrolment_id,
    enrolments.c.reference_id,
    enrolments.c.version,
    enrolments.c.watchlist_id,
    enrolments.c.owner,
    enrolments.c.subject_id,
    enrolments.c.image_sha256,
    enrolments.c.template,
    enrolments.c.dimension,
    enrolments.c.quality_components,
    enrolment_facts.c.pose,
)
_ROWS: sa.Select[Any] = sa.select(*_ROW).join(
    enrolment_facts, enrolment_facts.c.enrolment_id == enrolments.c.enrolment_id, isouter=True
)


class SqlFlags:
    """See services.ingest.flags.model.FlagStore."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter, vault: TemplateVault) -> None:
        self._engine = engine
        self._committer = committer
        self._vault = vault

    # --- checking

    def next_page(self, watchlist_id: str, model_id: str, limit: int) -> Page | None:
        with reading(self._engine) as connection:
            last = _last_settled(connection, watchlist_id)
            checked = sa.select(flag_checks.c.version).where(flag_checks.c.watchlist_id == watchlist_id)
            after = connection.scalar(checked) or 0
            if last <= after:
                return None
            rows = connection.execute(
                _ROWS.where(
                    enrolments.c.watchlist_id == watchlist_id,
                    enrolments.c.version > after,
                    enrolments.c.version <= last,
                    enrolments.c.state == _ENROLLED,
                    enrolments.c.source != Source.SYNTHETIC.value,
                    enrolments.c.model_id == model_id,
                )
                .order_by(enrolments.c.version)
                .limit(limit)
            ).all()
            others = [_others(connection, row, model_id) for row in rows]
        done_to = int(rows[-1].version) if len(rows) == limit else last
        found = [self._checked(row, own) for row, own in zip(rows, others, strict=True)]
        return Page([each for each in found if each is not None], done_to)

    def advance(self, watchlist_id: str, done_to: int) -> None:
        def work(connection: sa.Connection) -> int:
            fresh = insert_ignoring(connection, flag_checks).values(watchlist_id=watchlist_id, version=0)
            connection.execute(fresh)
            is_behind = sa.and_(flag_checks.c.watchlist_id == watchlist_id, flag_checks.c.version < done_to)
            return connection.execute(sa.update(flag_checks).where(is_behind).values(version=done_to)).rowcount

        self._committer.run(work)

    def start_again(self, watchlist_ids: frozenset[str]) -> None:
        query = sa.delete(flag_checks).where(flag_checks.c.watchlist_id.in_(sorted(watchlist_ids)))
        self._committer.run(lambda connection: connection.execute(query).rowcount)

    def enrolments_of(self, owner: str, watchlist_id: str, reference_ids: Sequence[str]) -> Mapping[str, str]:
        query = sa.select(enrolments.c.reference_id, enrolments.c.enrolment_id).where(
            enrolments.c.reference_id.in_(reference_ids),
            enrolments.c.owner == owner,
            enrolments.c.watchlist_id == watchlist_id,
            enrolments.c.state == _ENROLLED,
            enrolments.c.source != Source.SYNTHETIC.value,
        )
        with reading(self._engine) as connection:
            return {row.reference_id: row.enrolment_id for row in connection.execute(query)}

    def _checked(self, row: sa.Row[Any], others: Sequence[sa.Row[Any]]) -> CheckedReference | None:
        """None where the template was erased meanwhile."""
        own = [other for other in others if _is_frontal(other)] if _is_frontal(row) else []
        kept = [KeptTemplate(each.image_sha256, each.dimension, bytes(each.template)) for each in (row, *own)]
        template, *rest = self._vault.open(kept)
        if not template:
            return None
        return CheckedReference(
            enrolment_id=row.enrolment_id,
            reference_id=row.reference_id,
            version=row.version,
            watchlist_id=row.watchlist_id,
            owner=row.owner,
            subject_id=row.subject_id,
            template=template,
            dimension=row.dimension,
            own_templates=b"".join(rest),
        )

    # --- flags

    def known(self, keys: Sequence[str]) -> Mapping[str, Flag]:
        with reading(self._engine) as connection:
            found = _flags(connection, sa.select(flags).where(flags.c.key.in_(keys)))
        return {flag.key: flag for flag in found}

    def add(self, new: Sequence[Flag]) -> Sequence[bool]:
        return self._committer.run(lambda connection: [_add(connection, flag) for flag in new])

    def extend(self, flag: Flag, references: Sequence[FlaggedReference], band: str) -> None:
        def work(connection: sa.Connection) -> int:
            is_open = sa.and_(flags.c.flag_id == flag.flag_id, flags.c.state == FlagState.OPEN.value)
            changed = connection.execute(sa.update(flags).where(is_open).values(band=band)).rowcount
            if changed:
                _insert_references(connection, flag.flag_id, references)
            return changed

        self._committer.run(work)

    def find(self, flag_id: str) -> Flag | None:
        with reading(self._engine) as connection:
            found = _flags(connection, sa.select(flags).where(flags.c.flag_id == flag_id))
        return found[0] if found else None

    def list(self, selection: FlagFilter) -> Sequence[Flag]:
        query = sa.select(flags).where(
            flags.c.owner == selection.owner,
            flags.c.watchlist_id.in_(sorted(selection.watchlist_ids)),
            flags.c.flag_id > selection.after,
        )
        if selection.state is not None:
            query = query.where(flags.c.state == selection.state.value)
        if selection.kind is not None:
            query = query.where(flags.c.kind == selection.kind.value)
        with reading(self._engine) as connection:
            return _flags(connection, query.order_by(flags.c.flag_id).limit(selection.limit))

    def counts(self) -> Mapping[tuple[str, str, str], int]:
        columns = (flags.c.watchlist_id, flags.c.kind, flags.c.state)
        with reading(self._engine) as connection:
            rows = connection.execute(sa.select(*columns, sa.func.count()).group_by(*columns))
            return {(watchlist_id, kind, state): count for watchlist_id, kind, state, count in rows}

    def decide(self, flag_id: str, state: FlagState, person_id: str, reason: str, now_ms: int) -> bool:
        values = {"state": state.value, "decided_by": person_id, "reason": reason, "decided_at_ms": now_ms}
        is_open = sa.and_(flags.c.flag_id == flag_id, flags.c.state == FlagState.OPEN.value)
        query = sa.update(flags).where(is_open).values(values)
        return bool(self._committer.run(lambda connection: connection.execute(query).rowcount))

    def lapse(self, now_ms: int) -> int:
        return self._committer.run(lambda connection: _lapse(connection, now_ms))


def _add(connection: sa.Connection, flag: Flag) -> bool:
    values = asdict(flag) | {"kind": flag.kind.value, "state": flag.state.value}
    del values["references"]
    if not connection.execute(insert_ignoring(connection, flags), values).rowcount:
        return False
    _insert_references(connection, flag.flag_id, flag.references)
    return True


def _last_settled(connection: sa.Connection, watchlist_id: str) -> int:
    """The last version before which nothing of a watchlist is pending. Read in this order: what is committed under the
    sequence's value is there to be seen by the second query."""
    last = int(connection.scalar(sa.select(ledger_sequence.c.value)) or 0)
    pending = sa.select(sa.func.min(enrolments.c.version)).where(
        sa.text("state = 'accepted'"), enrolments.c.version > 0, enrolments.c.watchlist_id == watchlist_id
    )
    first = connection.scalar(pending)
    return last if first is None else min(last, int(first) - 1)


def _others(connection: sa.Connection, row: sa.Row[Any], model_id: str) -> Sequence[sa.Row[Any]]:
    query = _ROWS.where(
        enrolments.c.watchlist_id == row.watchlist_id,
        enrolments.c.owner == row.owner,
        enrolments.c.subject_id == row.subject_id,
        enrolments.c.enrolment_id != row.enrolment_id,
        enrolments.c.state == _ENROLLED,
        enrolments.c.model_id == model_id,
    )
    return connection.execute(query.order_by(enrolments.c.version.desc()).limit(_MOST_OWN)).all()


def _is_frontal(row: sa.Row[Any]) -> bool:
    yaw = json.loads(row.quality_components).get("yaw", 100.0)
    return row.pose not in _FROM_THE_SIDE and float(yaw) >= _MIN_YAW_SCORE


def _insert_references(connection: sa.Connection, flag_id: str, references: Sequence[FlaggedReference]) -> None:
    if rows := [asdict(reference) | {"flag_id": flag_id} for reference in references]:
        connection.execute(insert_ignoring(connection, flag_references), rows)


def _flags(connection: sa.Connection, query: sa.Select[Any]) -> list[Flag]:
    rows = connection.execute(query).all()
    ids = [row.flag_id for row in rows]
    by_flag: dict[str, list[FlaggedReference]] = defaultdict(list)
    wanted = (
        sa.select(flag_references).where(flag_references.c.flag_id.in_(ids)).order_by(flag_references.c.reference_id)
    )
    for row in connection.execute(wanted):
        by_flag[row.flag_id].append(FlaggedReference(row.enrolment_id, row.reference_id, row.subject_id))
    return [_flag(row, by_flag[row.flag_id]) for row in rows]


def _flag(row: sa.Row[Any], references: Sequence[FlaggedReference]) -> Flag:
    values = dict(row._mapping)
    values["kind"], values["state"] = FlagKind(values["kind"]), FlagState(values["state"])
    return Flag(**values, references=tuple(references))


def _lapse(connection: sa.Connection, now_ms: int) -> int:
    standing: dict[str, set[str]] = defaultdict(set)
    rows: dict[str, int] = defaultdict(int)
    query = (
        sa.select(flag_references.c.flag_id, enrolments.c.subject_id, flag_references.c.subject_id.label("flagged_as"))
        .join(enrolments, enrolments.c.enrolment_id == flag_references.c.enrolment_id)
        .join(flags, flags.c.flag_id == flag_references.c.flag_id)
        .where(flags.c.state == FlagState.OPEN.value, enrolments.c.state.in_(_STANDING))
    )
    for row in connection.execute(query):
        standing[row.flag_id].add(row.subject_id)
        rows[row.flag_id] += row.subject_id == row.flagged_as
    opened = connection.execute(
        sa.select(flags.c.flag_id, flags.c.kind).where(flags.c.state == FlagState.OPEN.value)
    ).all()
    gone = [row.flag_id for row in opened if not _stands(row.kind, standing[row.flag_id], rows[row.flag_id])]
    values = {"state": FlagState.LAPSED.value, "decided_at_ms": now_ms, "decided_by": "service:ingest"}
    connection.execute(sa.update(flags).where(flags.c.flag_id.in_(gone)).values(values))
    return len(gone)


def _stands(kind: str, subjects: set[str], unmoved: int) -> bool:
    """`subjects`: of its references that stand; `unmoved`: how many of them are under the subject that was flagged."""
    if kind == FlagKind.SAME_PERSON:
        return len(subjects) > 1
    return unmoved >= (2 if kind == FlagKind.DUPLICATE else 1)
