"""Tombstones beside the image keys, apart from the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.ingest.adapters.sql_queries import reading
from services.ingest.life.erasure import Tombstone
from services.shared.errors import DependencyUnavailable

metadata = sa.MetaData()

tombstones = sa.Table(
    "erasure_tombstones",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("subject_id", sa.Text, primary_key=True),
    # Empty for the subject as a whole.
    sa.Column("image_sha256", sa.String(64), primary_key=True),
    sa.Column("erasure_id", sa.String(36), nullable=False),
    sa.Column("erased_at_ms", sa.BigInteger, nullable=False),
    # Whether it was erased, or only taken back by its owner.
    sa.Column("is_erased", sa.Boolean, nullable=False),
)
_KEY = (tombstones.c.owner, tombstones.c.subject_id, tombstones.c.image_sha256)
_IN_ONE_QUERY = 500
# Made once: everything that comes in is asked about.
_TOMBSTONES_OF = sa.select(tombstones).where(sa.tuple_(*_KEY).in_(sa.bindparam("keys", expanding=True)))


class SqlErasureRegister:
    """See services.ingest.life.erasure.ErasureRegister. Beside the image keys; in the ledger where there are none."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        metadata.create_all(engine)

    def add(self, tombstones_: Sequence[Tombstone]) -> None:
        rows = [
            {
                "owner": each.owner,
                "subject_id": each.subject_id,
                "image_sha256": each.image_sha256,
                "erasure_id": each.erasure_id,
                "erased_at_ms": each.erased_at_ms,
                "is_erased": each.is_erased,
            }
            for each in tombstones_
        ]
        if not rows:
            return
        insert: Any = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(tombstones)
        newest = insert.on_conflict_do_update(
            index_elements=["owner", "subject_id", "image_sha256"],
            set_={name: insert.excluded[name] for name in ("erasure_id", "erased_at_ms", "is_erased")},
            # An erasure stands, whatever is only taken back later.
            where=sa.and_(
                tombstones.c.erased_at_ms < insert.excluded.erased_at_ms,
                sa.or_(insert.excluded.is_erased, sa.not_(tombstones.c.is_erased)),
            ),
        )
        try:
            with self._engine.begin() as connection:
                connection.execute(newest, rows)
        except sa.exc.DBAPIError as error:
            raise DependencyUnavailable(
                f"The erasure register cannot be written ({type(error).__name__}).",
                advice="Try again; operators: check the disk or server of the image keys.",
            ) from error

    def find(self, keys: Sequence[tuple[str, str, str]]) -> Mapping[tuple[str, str, str], Tombstone]:
        found: dict[tuple[str, str, str], Tombstone] = {}
        with reading(self._engine) as connection:
            for start in range(0, len(keys), _IN_ONE_QUERY):
                part = keys[start : start + _IN_ONE_QUERY]
                for row in connection.execute(_TOMBSTONES_OF, {"keys": list(part)}):
                    found[row.owner, row.subject_id, row.image_sha256] = Tombstone(*row)
        return found

    def taken_back(self, sha256s: Sequence[str]) -> frozenset[str]:
        """Those of these images that their owner took back and that were not erased."""
        found: set[str] = set()
        with reading(self._engine) as connection:
            for start in range(0, len(sha256s), _IN_ONE_QUERY):
                part = sha256s[start : start + _IN_ONE_QUERY]
                query = sa.select(tombstones.c.image_sha256).where(
                    tombstones.c.image_sha256.in_(part), sa.not_(tombstones.c.is_erased)
                )
                found.update(connection.scalars(query))
        return frozenset(found)

    def all(self) -> Sequence[Tombstone]:
        with reading(self._engine) as connection:
            return [Tombstone(*row) for row in connection.execute(sa.select(tombstones))]
