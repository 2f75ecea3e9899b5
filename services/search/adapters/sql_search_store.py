"""Searches in a relational store, through SQLAlchemy: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.search.adapters.schema import candidates, idempotency_keys, searches
from services.search.ports import Candidate, NewSearch, SearchStatus, StoredSearch
from services.shared.database import one_writer, transaction
from services.shared.errors import Conflict
from services.shared.tokens import Principal

_WITH_AN_OUTCOME = (SearchStatus.DONE, SearchStatus.REFUSED)


class SqlSearchStore:
    """SearchStore on one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writing = one_writer(engine)

    def open(self, search: NewSearch) -> StoredSearch | None:
        with self._writing, self._transaction() as connection:
            if search.idempotency_key is not None:
                earlier = self._claim(connection, search, search.idempotency_key)
                if earlier is not None:
                    return earlier
            else:
                connection.execute(_INSERT_SEARCH, _row_of(search))
            return None

    def finish(self, search_id: str, result: bytes, candidates: Sequence[Candidate], model_id: str) -> None:
        rows = [
            {
                "search_id": search_id,
                "rank": candidate.rank,
                "subject_id": candidate.subject_id,
                "reference_id": candidate.reference_id,
                "watchlist_id": candidate.watchlist_id,
                "owner": candidate.owner,
                "score": candidate.score,
            }
            for candidate in candidates
        ]
        with self._writing, self._transaction() as connection:
            connection.execute(
                _UPDATE_SEARCH,
                {
                    "wanted_id": search_id,
                    "status": SearchStatus.DONE.value,
                    "result": result,
                    "model_id": model_id,
                },
            )
            if rows:
                connection.execute(_INSERT_CANDIDATE, rows)

    def stop(self, search_id: str, status: SearchStatus, problem: Mapping[str, Any]) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(
                sa.update(searches)
                .where(searches.c.search_id == search_id)
                .values(status=status.value, problem=dict(problem), result=None)
            )
            connection.execute(sa.delete(candidates).where(candidates.c.search_id == search_id))

    def close(self, closed: Mapping[str, Mapping[str, float] | None]) -> None:
        if not closed:
            return
        rows = [
            {"wanted_id": search_id, "is_closed": True, "timings_ms": dict(timings) if timings else None}
            for search_id, timings in closed.items()
        ]
        with self._writing, self._transaction() as connection:
            connection.execute(_UPDATE_SEARCH, rows)

    def unclosed(self, limit: int) -> Sequence[StoredSearch]:
        query = sa.select(searches).where(sa.not_(searches.c.is_closed)).order_by(searches.c.opened_at).limit(limit)
        with self._transaction() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def find(self, search_id: str) -> StoredSearch | None:
        with self._transaction() as connection:
            row = connection.execute(sa.select(searches).where(searches.c.search_id == search_id)).one_or_none()
            return None if row is None else _stored(row)

    def _claim(self, connection: sa.Connection, search: NewSearch, key: str) -> StoredSearch | None:
        """Record the search under its key; the earlier search of the key where that has an outcome to give again."""
        owner = {"force": search.principal.force, "person_id": search.principal.person_id, "key": key}
        fingerprint = search.request.fingerprint(search.probe_sha256)
        # Written first: the write lock keeps a twin that comes at the same moment waiting until this is committed.
        connection.execute(_INSERT_SEARCH, _row_of(search))
        known = connection.execute(_FIND_KEY, owner).one_or_none()
        if known is None:
            try:
                with connection.begin_nested():
                    connection.execute(
                        _INSERT_KEY, {**owner, "fingerprint": fingerprint, "search_id": search.search_id}
                    )
            except sa.exc.IntegrityError as error:
                raise _still_running() from error
            return None
        if known.fingerprint != fingerprint:
            raise Conflict(
                "This Idempotency-Key was used for another request.",
                advice="Use a new key for a new request; the same key only to send the same request again.",
                code="idempotency_key_reused",
            )
        earlier = _stored(known)
        if not earlier.is_closed:
            raise _still_running()
        if earlier.status in _WITH_AN_OUTCOME:
            connection.execute(sa.delete(searches).where(searches.c.search_id == search.search_id))
            return earlier
        taken_over = connection.execute(
            _TAKE_OVER_KEY, {**_bound(owner), "earlier_id": earlier.search_id, "new_id": search.search_id}
        )
        if taken_over.rowcount != 1:
            raise _still_running()
        return None

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The record of searches cannot be used.", "search")


def _bound(owner: Mapping[str, str]) -> dict[str, str]:
    return {f"of_{name}": value for name, value in owner.items()}


def _is_key(names: Mapping[str, str]) -> sa.ColumnElement[bool]:
    return sa.and_(*(idempotency_keys.c[name] == sa.bindparam(bound) for name, bound in names.items()))


_KEY_COLUMNS = ("force", "person_id", "key")
_INSERT_SEARCH = sa.insert(searches)
_INSERT_CANDIDATE = sa.insert(candidates)
_INSERT_KEY = sa.insert(idempotency_keys)
_FIND_KEY = (
    sa.select(idempotency_keys.c.fingerprint, searches)
    .join(searches, searches.c.search_id == idempotency_keys.c.search_id)
    .where(_is_key({name: name for name in _KEY_COLUMNS}))
)
_TAKE_OVER_KEY = (
    sa.update(idempotency_keys)
    .where(_is_key({name: f"of_{name}" for name in _KEY_COLUMNS}))
    .where(idempotency_keys.c.search_id == sa.bindparam("earlier_id"))
    .values(search_id=sa.bindparam("new_id"))
)
# The columns set are those of the parameters.
_UPDATE_SEARCH = sa.update(searches).where(searches.c.search_id == sa.bindparam("wanted_id"))


def _still_running() -> Conflict:
    return Conflict(
        "The earlier request with this Idempotency-Key has no outcome yet.",
        advice="Wait a second and send it again with the same key.",
        code="search_running",
    )


def _row_of(search: NewSearch) -> dict[str, Any]:
    request = search.request
    return {
        "search_id": search.search_id,
        "outcome_entry_id": search.outcome_entry_id,
        "status": SearchStatus.OPEN.value,
        "person_id": search.principal.person_id,
        "force": search.principal.force,
        "roles": sorted(search.principal.roles),
        "case_reference": request.case_reference,
        "purpose": request.purpose,
        "offence": request.offence,
        "source": request.source.value,
        "watchlists": list(request.watchlists),
        "mode": request.mode.value,
        "max_candidates": request.max_candidates,
        "face": request.face,
        "probe_sha256": search.probe_sha256,
        "probe_size_bytes": search.probe_size_bytes,
        "opened_at": search.opened_at.astimezone(UTC),
        "is_closed": False,
        "case_type": request.case_type.value,
        "nature": request.nature.value,
        "permitted_watchlists": sorted(search.principal.watchlists),
        "trained_until": search.principal.trained_until,
        "policy": search.policy,
    }


def _stored(row: sa.Row[Any]) -> StoredSearch:
    return StoredSearch(
        search_id=row.search_id,
        outcome_entry_id=row.outcome_entry_id,
        principal=Principal(row.person_id, row.force, frozenset(row.roles), frozenset()),
        case_reference=row.case_reference,
        purpose=row.purpose,
        watchlists=tuple(row.watchlists),
        probe_sha256=row.probe_sha256,
        status=SearchStatus(row.status),
        opened_at=_utc(row.opened_at),
        is_closed=row.is_closed,
        result=row.result,
        timings_ms=row.timings_ms,
        problem=row.problem,
        probe_erased_at=None if row.probe_erased_at is None else _utc(row.probe_erased_at),
    )


def _utc(moment: datetime) -> datetime:
    """SQLite gives back what was stored without its zone, which is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
