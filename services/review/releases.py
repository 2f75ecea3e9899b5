"""Where a subject's references were the potential name of a released result: what the subject may be told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import grpc

from services.review.grpc_server import ReviewServicer
from services.review.model import Case
from services.review.workflow import Workflow
from services.rpc.v1 import review_pb2
from services.shared.clock import rfc3339
from services.shared.errors import InvalidRequest

MAX_REFERENCES = 1000


class ReleasedCases(Protocol):
    """The record of casework, as releases need it; `adapters.sql_released_cases.SqlReleasedCases`."""

    def naming(self, reference_ids: Sequence[str]) -> Sequence[Case]:
        """Released cases whose document bears one of these. Raises DependencyUnavailable."""
        ...


class ReleaseServicer(ReviewServicer):
    """The rules, and releases without case, people or other candidates."""

    def __init__(self, workflow: Workflow, cases: ReleasedCases) -> None:
        super().__init__(workflow)
        self._cases = cases

    def ListReleases(  # noqa: N802 - the name is the wire's
        self, request: review_pb2.ListReleasesRequest, context: grpc.ServicerContext
    ) -> review_pb2.ListReleasesResponse:
        if not request.owner or len(request.reference_ids) > MAX_REFERENCES:
            raise InvalidRequest("No owner, or over 1,000 references.", advice="Ask in parts.")
        cases = self._cases.naming(request.reference_ids)
        found = [each for case in cases for each in _names(case, request.owner, frozenset(request.reference_ids))]
        return review_pb2.ListReleasesResponse(releases=sorted(found, key=lambda each: each.released_at))


def _names(case: Case, owner: str, reference_ids: frozenset[str]) -> list[review_pb2.ReleasedName]:
    if case.release is None:
        return []
    return [
        review_pb2.ReleasedName(
            released_at=rfc3339(case.release.released_at),
            purpose=case.request.purpose,
            force=case.force,
            watchlist_id=name.watchlist,
            reference_id=name.reference_id,
            agreement=name.agreement,
        )
        for name in case.release.names
        if name.owner == owner and name.reference_id in reference_ids
    ]
