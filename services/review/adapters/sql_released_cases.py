"""Released cases by what they name."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from pydantic import TypeAdapter

from services.review.adapters.schema import cases
from services.review.model import Case
from services.shared.errors import DependencyUnavailable

_CASE = TypeAdapter(Case)
_PAGE = 200


class SqlReleasedCases:
    """See services.review.releases.ReleasedCases. It reads every case: one subject asks seldom, and a unit has fifty
    requests a month."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def naming(self, reference_ids: Sequence[str]) -> Sequence[Case]:
        wanted = [each.encode() for each in reference_ids]
        found: list[Case] = []
        after = ""
        while True:
            page = self._page(after)
            if not page:
                return found
            after = page[-1][0]
            # Parsed only where the bytes bear one of the ids at all.
            found += [_CASE.validate_json(text) for _, text in page if any(each in text for each in wanted)]

    def _page(self, after: str) -> list[tuple[str, bytes]]:
        query = sa.select(cases.c.request_id, cases.c.document).where(cases.c.request_id > after)
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(query.order_by(cases.c.request_id).limit(_PAGE)).all()
        except sa.exc.DBAPIError as error:
            raise DependencyUnavailable("The record of casework cannot be read.", advice="Try again.") from error
        return [(row.request_id, bytes(row.document)) for row in rows]
