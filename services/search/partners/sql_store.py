"""Consortium searches in a relational store, through SQLAlchemy: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.search.partners.ports import Consortium, Direction, Exchange
from services.search.partners.schema import consortiums, exchanges, used_tokens
from services.shared.database import AlreadyStored, one_writer, transaction
from services.shared.errors import Conflict
from services.shared.tokens import Principal


class SqlPartnerStore:
    """PartnerStore on one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writing = one_writer(engine)

    def open_exchange(self, exchange: Exchange) -> None:
        row = {
            "activity_id": exchange.activity_id,
            "outcome_entry_id": exchange.outcome_entry_id,
            "direction": exchange.direction.value,
            "partner": exchange.partner,
            **_person(exchange.principal),
            "case_reference": exchange.case_reference,
            "purpose": exchange.purpose,
            "objects": list(exchange.objects),
            "opened_at": exchange.opened_at.astimezone(UTC),
        }
        with self._writing, self._transaction() as connection:
            connection.execute(sa.insert(exchanges), row)

    def close_exchange(self, activity_id: str) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(sa.delete(exchanges).where(exchanges.c.activity_id == activity_id))

    def open_exchanges(self, before: datetime, limit: int) -> Sequence[Exchange]:
        query = sa.select(exchanges).where(exchanges.c.opened_at < before.astimezone(UTC))
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(exchanges.c.opened_at).limit(limit)).all()
        return [
            Exchange(
                activity_id=row.activity_id,
                outcome_entry_id=row.outcome_entry_id,
                direction=Direction(row.direction),
                partner=row.partner,
                principal=_principal(row),
                case_reference=row.case_reference,
                purpose=row.purpose,
                objects=tuple(row.objects),
                opened_at=_utc(row.opened_at),
            )
            for row in rows
        ]

    def use_token(self, token_id: str, expires_at: datetime, now: datetime) -> bool:
        try:
            with self._writing, self._transaction() as connection:
                connection.execute(sa.delete(used_tokens).where(used_tokens.c.expires_at < now.astimezone(UTC)))
                row = {"token_id": token_id, "expires_at": expires_at.astimezone(UTC)}
                connection.execute(sa.insert(used_tokens), row)
        except AlreadyStored:
            return False
        return True

    def open(self, consortium: Consortium) -> Consortium:
        row = {
            "consortium_id": consortium.consortium_id,
            **_person(consortium.principal),
            "case_reference": consortium.case_reference,
            "purpose": consortium.purpose,
            "watchlists": list(consortium.watchlists),
            "fingerprint": consortium.fingerprint,
            "opened_at": consortium.opened_at.astimezone(UTC),
            "idempotency_key": consortium.idempotency_key,
        }
        try:
            with self._writing, self._transaction() as connection:
                connection.execute(sa.insert(consortiums), row)
        except AlreadyStored as error:
            return self._earlier(consortium, error)
        return consortium

    def finish(self, consortium_id: str, document: bytes) -> None:
        with self._writing, self._transaction() as connection:
            connection.execute(
                sa.update(consortiums).where(consortiums.c.consortium_id == consortium_id).values(document=document)
            )

    def find(self, consortium_id: str) -> Consortium | None:
        return self._find(consortiums.c.consortium_id == consortium_id)

    def _earlier(self, consortium: Consortium, error: AlreadyStored) -> Consortium:
        who = consortium.principal
        found = self._find(
            sa.and_(
                consortiums.c.force == who.force,
                consortiums.c.person_id == who.person_id,
                consortiums.c.idempotency_key == consortium.idempotency_key,
            )
        )
        if found is None:
            raise error
        if found.fingerprint != consortium.fingerprint:
            raise Conflict(
                "This Idempotency-Key was used for another request.",
                advice="Use a new key for a new request; the same key only to send the same request again.",
                code="idempotency_key_reused",
            ) from error
        return found

    def _find(self, condition: sa.ColumnElement[bool]) -> Consortium | None:
        with self._transaction() as connection:
            row = connection.execute(sa.select(consortiums).where(condition)).one_or_none()
        if row is None:
            return None
        return Consortium(
            consortium_id=row.consortium_id,
            principal=_principal(row),
            case_reference=row.case_reference,
            purpose=row.purpose,
            watchlists=tuple(row.watchlists),
            fingerprint=row.fingerprint,
            opened_at=_utc(row.opened_at),
            idempotency_key=row.idempotency_key,
            document=row.document,
        )

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The store of searches does not answer.", "search")


def _person(principal: Principal) -> dict[str, Any]:
    return {"person_id": principal.person_id, "force": principal.force, "roles": sorted(principal.roles)}


def _principal(row: Any) -> Principal:
    return Principal(row.person_id, row.force, frozenset(row.roles), frozenset())


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
