"""Images that are about to be removed, and the uploads that may need them: who comes second sees the other.

An upload writes its intent, commits, and then looks whether its image is held. A removal writes its hold, commits, and
then looks whether an intent or a row names the image. Whatever the order, one of the two sees the other: the removal
lets go, or the upload waits until the image is gone and stores it anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.intents import intent_from_json
from services.ingest.adapters.schema import enrolments, image_holds, open_intents
from services.ingest.adapters.sql_ledger import insert_ignoring
from services.ingest.adapters.sql_queries import reading

_IMAGE = "image:"
# What a living removal holds is let go in a fraction of this; see `MAX_HOLD_S` there.
_LEFT_BEHIND_MS = 600_000


class SqlImageHolds:
    """See services.ingest.ports.ImageHolds."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter, instance: str) -> None:
        self._engine = engine
        self._committer = committer
        self._instance = instance

    def hold(self, holder: str, sha256s: Sequence[str], now_ms: int) -> frozenset[str]:
        rows = [
            {"sha256": sha256, "holder": holder, "instance": self._instance, "held_at_ms": now_ms}
            for sha256 in sorted(set(sha256s))
        ]
        mine = sa.select(image_holds.c.sha256).where(image_holds.c.holder == holder, image_holds.c.sha256.in_(sha256s))

        def work(connection: sa.Connection) -> frozenset[str]:
            if rows:
                connection.execute(insert_ignoring(connection, image_holds), rows)
            return frozenset(connection.scalars(mine))

        return self._committer.run(work)

    def release(self, holder: str) -> None:
        query = sa.delete(image_holds).where(image_holds.c.holder == holder)
        self._committer.run(lambda connection: connection.execute(query).rowcount)

    def release_left_behind(self, now_ms: int, *, is_start: bool) -> None:
        is_old = image_holds.c.held_at_ms < now_ms - _LEFT_BEHIND_MS
        is_own = image_holds.c.instance == self._instance
        query = sa.delete(image_holds).where(sa.or_(is_old, is_own) if is_start else is_old)
        self._committer.run(lambda connection: connection.execute(query).rowcount)

    def held(self, sha256s: Sequence[str]) -> frozenset[str]:
        query = sa.select(image_holds.c.sha256).where(image_holds.c.sha256.in_(sha256s))
        with reading(self._engine) as connection:
            return frozenset(connection.scalars(query))

    def named(self, sha256s: Sequence[str]) -> frozenset[str]:
        rows = sa.select(enrolments.c.image_sha256).where(enrolments.c.image_sha256.in_(sha256s)).distinct()
        with reading(self._engine) as connection:
            return frozenset(connection.scalars(rows)) | _intended(connection, sha256s)

    def intended(self, sha256s: Sequence[str]) -> frozenset[str]:
        with reading(self._engine) as connection:
            return _intended(connection, sha256s)


def _intended(connection: sa.Connection, sha256s: Sequence[str]) -> frozenset[str]:
    """Those that an upload under way names. There are as many as uploads at once, and those of the last minutes."""
    wanted = set(sha256s)
    objects = (
        each
        for text in connection.scalars(sa.select(open_intents.c.intent))
        for each in intent_from_json(text).objects
        if each.startswith(_IMAGE)
    )
    return frozenset(wanted.intersection(each.removeprefix(_IMAGE) for each in objects))
