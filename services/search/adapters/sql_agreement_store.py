"""Registered agreements in a relational store, through SQLAlchemy: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from services.search.adapters.schema import agreement_records
from services.search.agreements.documents import Grant, Signature, Withdrawal
from services.search.agreements.ports import AgreementRecord
from services.shared.database import AlreadyStored, transaction
from services.shared.errors import Conflict

_DOCUMENT: TypeAdapter[Grant | Withdrawal] = TypeAdapter(Grant | Withdrawal)
_COUNT = sa.select(sa.func.count()).select_from(agreement_records)
_ALL = sa.select(agreement_records).order_by(agreement_records.c.place)


class SqlAgreementStore:
    """AgreementStore on one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def revision(self) -> int:
        with self._transaction() as connection:
            return int(connection.execute(_COUNT).scalar_one())

    def records(self) -> Sequence[AgreementRecord]:
        with self._transaction() as connection:
            return [_record(row) for row in connection.execute(_ALL)]

    def add(self, record: AgreementRecord) -> None:
        signature = record.signature
        row = {
            "reference": record.document.reference,
            "version": record.version,
            "document": record.document.canonical().decode(),
            "key_id": None if signature is None else signature.key_id,
            "signature": None if signature is None else signature.signature,
            "recorded_at": record.recorded_at.astimezone(UTC),
            "recorded_by": record.recorded_by,
            "recorded_by_force": record.recorded_by_force,
            "reason": record.reason,
        }
        try:
            with self._transaction() as connection:
                connection.execute(sa.insert(agreement_records), row)
        except AlreadyStored as error:
            raise Conflict(
                "The agreement was changed by somebody else at this moment.", advice="Look at it and try again."
            ) from error

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The agreements cannot be read, so nothing is permitted.", "search")


def _record(row: sa.Row[Any]) -> AgreementRecord:
    signature = None
    if row.signature is not None:
        signature = Signature(key_id=row.key_id, signature=row.signature)
    return AgreementRecord(
        document=_DOCUMENT.validate_json(row.document),
        signature=signature,
        version=row.version,
        recorded_at=_utc(row.recorded_at),
        recorded_by=row.recorded_by,
        recorded_by_force=row.recorded_by_force,
        reason=row.reason,
    )


def _utc(moment: datetime) -> datetime:
    """SQLite gives back what was stored without its zone, which is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
