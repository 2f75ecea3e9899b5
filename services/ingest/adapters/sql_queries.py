"""The reading side of the ledger: lookups, pages, counts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from services.ingest.adapters.schema import enrolments
from services.ingest.enrolling.enrolment import (
    Acceptance,
    EnrolmentKey,
    EnrolmentOutcome,
    EnrolmentState,
    EnrolmentView,
    Source,
)
from services.ingest.ports import EnrolmentFilter
from services.rpc.v1 import ingest_pb2
from services.shared.errors import DependencyUnavailable

_KEY_COLUMNS = (
    enrolments.c.watchlist_id,
    enrolments.c.owner,
    enrolments.c.subject_id,
    enrolments.c.image_sha256,
    enrolments.c.model_id,
)
# Of one watchlist, owner and model; made once, because putting it together takes longer than running it.
_STANDING: sa.Select[Any] = sa.select(enrolments.c.enrolment_id, enrolments.c.state, *_KEY_COLUMNS).where(
    enrolments.c.watchlist_id == sa.bindparam("of_watchlist"),
    enrolments.c.owner == sa.bindparam("of_owner"),
    enrolments.c.model_id == sa.bindparam("of_model"),
    enrolments.c.subject_id.in_(sa.bindparam("of_subjects", expanding=True)),
    enrolments.c.image_sha256.in_(sa.bindparam("of_images", expanding=True)),
)
# Everything but the template, which leaves the ledger for the gallery alone.
_NOT_SEARCHABLE = frozenset({EnrolmentState.REFUSED, EnrolmentState.QUARANTINED})
_VIEW_COLUMNS = [column for column in enrolments.c if column.name != "template"]


def key_condition(key: EnrolmentKey) -> sa.ColumnElement[bool]:
    values = (key.watchlist_id, key.owner, key.subject_id, key.image_sha256, key.model_id)
    return sa.and_(*(column == value for column, value in zip(_KEY_COLUMNS, values, strict=True)))


def key_of(row: sa.Row[Any]) -> EnrolmentKey:
    return EnrolmentKey(row.watchlist_id, row.owner, row.subject_id, row.image_sha256, row.model_id)


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection to read with; the store's own errors become DependencyUnavailable."""
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.DBAPIError as error:
        raise DependencyUnavailable(
            f"The ledger cannot be read ({type(error).__name__}).",
            advice="Try again; operators: check the ledger's disk or server.",
        ) from error


def _alike(keys: Sequence[EnrolmentKey]) -> Iterable[frozenset[EnrolmentKey]]:
    """By watchlist, owner and model."""
    groups: dict[tuple[str, str, str], set[EnrolmentKey]] = defaultdict(set)
    for key in keys:
        groups[key.watchlist_id, key.owner, key.model_id].add(key)
    return map(frozenset, groups.values())


def _standing(connection: sa.Connection, alike: Collection[EnrolmentKey]) -> Mapping[EnrolmentKey, Acceptance]:
    first = next(iter(alike))
    values = {
        "of_watchlist": first.watchlist_id,
        "of_owner": first.owner,
        "of_model": first.model_id,
        "of_subjects": sorted({key.subject_id for key in alike}),
        "of_images": sorted({key.image_sha256 for key in alike}),
    }
    return {
        key_of(row): Acceptance(row.enrolment_id, EnrolmentState(row.state), is_new=False)
        for row in connection.execute(_STANDING, values)
    }


class LedgerQueries:
    """What callers may know of the ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def reading(self) -> Any:
        return reading(self._engine)

    def find(self, keys: Sequence[EnrolmentKey]) -> Mapping[EnrolmentKey, Acceptance]:
        found: dict[EnrolmentKey, Acceptance] = {}
        if not keys:
            return found
        with self.reading() as connection:
            for group in _alike(keys):
                # By subject and image apart, so a row may be of one and the other of two that were asked for.
                found |= {key: known for key, known in _standing(connection, group).items() if key in group}
        return found

    def owners_of_image(self, sha256: str) -> frozenset[str]:
        query = sa.select(enrolments.c.owner).where(enrolments.c.image_sha256 == sha256).distinct()
        with self.reading() as connection:
            return frozenset(connection.scalars(query))

    def view(self, enrolment_id: str) -> EnrolmentView | None:
        query = sa.select(*_VIEW_COLUMNS).where(enrolments.c.enrolment_id == enrolment_id)
        with self.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _view(row)

    def list(self, selection: EnrolmentFilter) -> Sequence[EnrolmentView]:
        # By state one after the other, because that is how the index finds the next page without sorting everything.
        states = [selection.state] if selection.state is not None else list(EnrolmentState)
        with self.reading() as connection:
            found = [row for state in states for row in connection.execute(_page(selection, state))]
        found.sort(key=lambda row: str(row.enrolment_id))
        return [_view(row) for row in found[: selection.limit]]

    def outcomes(self, selection: EnrolmentFilter, enrolment_ids: Sequence[str]) -> Sequence[EnrolmentOutcome]:
        query = sa.select(
            enrolments.c.enrolment_id,
            enrolments.c.state,
            enrolments.c.reason,
            enrolments.c.detail,
            enrolments.c.withdrawal_reason,
        ).where(
            enrolments.c.enrolment_id.in_(enrolment_ids),
            enrolments.c.owner == selection.owner,
            enrolments.c.watchlist_id.in_(sorted(selection.watchlist_ids)),
        )
        with self.reading() as connection:
            return [EnrolmentOutcome(row.enrolment_id, *_standing_of(row)) for row in connection.execute(query)]

    def count_states(self, owner: str, watchlist_ids: frozenset[str]) -> Mapping[EnrolmentState, int]:
        # Every column of the index by equality: a hundred thousand synthetic references beside them cost nothing.
        query = (
            sa.select(enrolments.c.state, sa.func.count())
            .where(
                enrolments.c.watchlist_id.in_(sorted(watchlist_ids)),
                enrolments.c.state.in_([state.value for state in EnrolmentState]),
                enrolments.c.source.in_([source.value for source in Source if source is not Source.SYNTHETIC]),
                enrolments.c.owner == owner,
            )
            .group_by(enrolments.c.state)
        )
        with self.reading() as connection:
            counted: dict[str, int] = dict(connection.execute(query).all())
        return {state: counted.get(state.value, 0) for state in EnrolmentState}

    def counts(self) -> Sequence[ingest_pb2.WatchlistCount]:
        # The columns of an index, in its order.
        kinds = (enrolments.c.watchlist_id, enrolments.c.state, enrolments.c.source, enrolments.c.owner)
        by_watchlist: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        by_owner: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
        with self.reading() as connection:
            for watchlist_id, state, source, owner, count in connection.execute(
                sa.select(*kinds, sa.func.count()).group_by(*kinds)
            ):
                counted = by_watchlist[watchlist_id]
                counted["accepted"] += count
                counted["pending" if state == EnrolmentState.ACCEPTED else state] += count
                if source == Source.SYNTHETIC and state == EnrolmentState.ENROLLED:
                    counted["synthetic"] += count
                if state in _NOT_SEARCHABLE:
                    own = by_owner[watchlist_id][owner]
                    own[state] = own.get(state, 0) + count
        return [
            ingest_pb2.WatchlistCount(
                watchlist_id=watchlist_id,
                owners=[
                    ingest_pb2.OwnerCount(owner=owner, **own) for owner, own in sorted(by_owner[watchlist_id].items())
                ],
                **counted,
            )
            for watchlist_id, counted in sorted(by_watchlist.items())
        ]

    def pending_count(self) -> int:
        # The version, always positive, leads SQLite to the partial index of pending rows.
        pending = (sa.text("state = 'accepted'"), enrolments.c.version > 0)
        query = sa.select(sa.func.count()).select_from(enrolments).where(*pending)
        with self.reading() as connection:
            return int(connection.scalar(query) or 0)

    def last_model_id(self) -> str | None:
        query = (
            sa.select(enrolments.c.model_id)
            .where(enrolments.c.verdict == "enrol")
            .order_by(enrolments.c.enrolment_id.desc())
            .limit(1)
        )
        with self.reading() as connection:
            found: str | None = connection.scalar(query)
        return found


def _page(selection: EnrolmentFilter, state: EnrolmentState) -> sa.Select[Any]:
    return (
        sa.select(*_VIEW_COLUMNS)
        .where(
            enrolments.c.owner == selection.owner,
            enrolments.c.state == state.value,
            enrolments.c.watchlist_id.in_(sorted(selection.watchlist_ids)),
            enrolments.c.enrolment_id > selection.after,
        )
        .order_by(enrolments.c.enrolment_id)
        .limit(selection.limit)
    )


def _standing_of(row: sa.Row[Any]) -> tuple[EnrolmentState, str, str]:
    """State, reason and detail. A verdict that is durable but not acted on yet is not out."""
    state = EnrolmentState(row.state)
    if state is EnrolmentState.ACCEPTED:
        return state, "", ""
    reason = row.withdrawal_reason if state is EnrolmentState.WITHDRAWN else row.reason
    return state, reason, row.detail


def _view(row: sa.Row[Any]) -> EnrolmentView:
    state, reason, detail = _standing_of(row)
    return EnrolmentView(
        enrolment_id=row.enrolment_id,
        reference_id=row.reference_id,
        watchlist_id=row.watchlist_id,
        owner=row.owner,
        subject_id=row.subject_id,
        lawful_basis=row.lawful_basis,
        captured_on=row.captured_on,
        agreement_reference=row.agreement_reference,
        image_sha256=row.image_sha256,
        state=state,
        reason=reason,
        detail=detail,
        unified_quality=row.unified_quality,
        quality_components=json.loads(row.quality_components),
        inter_eye_px=row.inter_eye_px,
        model_id=row.model_id,
        licence=row.licence,
        source=row.source,
        accepted_at_ms=row.accepted_at_ms,
        settled_at_ms=row.settled_at_ms,
    )
