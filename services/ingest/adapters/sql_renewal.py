"""New versions for references that a gallery has to take again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_ledger import next_versions
from services.ingest.enrolling.enrolment import EnrolmentState

_IN_ONE_QUERY = 1000


class SqlRenewal:
    """See services.ingest.life.reconciliation.RenewingLedger."""

    def __init__(self, committer: GroupCommitter) -> None:
        self._committer = committer

    def renew(self, reference_ids: Sequence[str]) -> Mapping[str, int]:
        """The new versions; what is not enrolled any more, or not yet, has none."""
        found: dict[str, int] = {}
        for start in range(0, len(reference_ids), _IN_ONE_QUERY):
            found |= self._renew(reference_ids[start : start + _IN_ONE_QUERY])
        return found

    def standing(self) -> Mapping[tuple[str, str], int]:
        query = (
            sa.select(enrolments.c.owner, enrolments.c.watchlist_id, sa.func.count())
            .where(enrolments.c.state == EnrolmentState.ENROLLED.value)
            .group_by(enrolments.c.owner, enrolments.c.watchlist_id)
        )

        def work(connection: sa.Connection) -> Mapping[tuple[str, str], int]:
            return {(owner, watchlist): count for owner, watchlist, count in connection.execute(query)}

        return self._committer.run(work)

    def _renew(self, reference_ids: Sequence[str]) -> Mapping[str, int]:
        def work(connection: sa.Connection) -> Mapping[str, int]:
            standing = connection.scalars(
                sa.select(enrolments.c.reference_id)
                .where(
                    enrolments.c.reference_id.in_(reference_ids),
                    enrolments.c.state == EnrolmentState.ENROLLED.value,
                )
                .with_for_update()
            ).all()
            if not standing:
                return {}
            versions = dict(zip(standing, next_versions(connection, len(standing)), strict=True))
            statement = (
                sa.update(enrolments)
                .where(enrolments.c.reference_id == sa.bindparam("of_reference"))
                .values(version=sa.bindparam("new_version"))
            )
            connection.execute(
                statement, [{"of_reference": name, "new_version": version} for name, version in versions.items()]
            )
            return versions

        return self._committer.run(work)
