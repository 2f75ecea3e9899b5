"""The counts of shadow searches: of each migration, served model and process one row, so that nobody waits for
another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager

import sqlalchemy as sa

from services.search.adapters.schema import metadata
from services.shared.database import transaction

shadow_counts = sa.Table(
    "shadow_counts",
    metadata,
    sa.Column("migration_id", sa.String(36), primary_key=True),
    sa.Column("served_model_id", sa.Text, primary_key=True),
    sa.Column("process_id", sa.String(36), primary_key=True),
    # A JSON object of whole numbers: nobody's name, no template.
    sa.Column("counts", sa.Text, nullable=False),
)


class SqlShadowCounts:
    """Every method is one transaction. All raise DependencyUnavailable."""

    def __init__(self, engine: sa.Engine, process_id: str) -> None:
        self._engine = engine
        self._process_id = process_id

    def keep(self, migration_id: str, served_model_id: str, counts: Mapping[str, int]) -> None:
        """What this process has counted in all replaces what it had."""
        key = {"migration_id": migration_id, "served_model_id": served_model_id, "process_id": self._process_id}
        here = sa.and_(*(shadow_counts.c[name] == value for name, value in key.items()))
        text = json.dumps(dict(counts), sort_keys=True)
        with self._transaction() as connection:
            changed = connection.execute(sa.update(shadow_counts).where(here).values(counts=text)).rowcount
            if not changed:
                connection.execute(sa.insert(shadow_counts).values(**key, counts=text))

    def of(self, migration_id: str) -> Mapping[str, Counter[str]]:
        """By served model, of all processes together."""
        query = sa.select(shadow_counts.c.served_model_id, shadow_counts.c.counts).where(
            shadow_counts.c.migration_id == migration_id
        )
        found: dict[str, Counter[str]] = {}
        with self._transaction() as connection:
            for model_id, text in connection.execute(query):
                found.setdefault(model_id, Counter()).update(json.loads(text))
        return found

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return transaction(self._engine, "The store of search cannot be used.", "search")
