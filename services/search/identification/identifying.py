"""Searches that say more of themselves in the log than who made them: for a partner, for an unsolved case."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.rpc.auditing import AuditRecorder
from services.search.identification.identify import Identify
from services.search.identification.matching import Matching
from services.search.identification.trail import SearchTrail


class IdentifyFor:
    """Makes the use case `Identify` for one call; all of them share stores, limits and the guard against near
    duplicates."""

    def __init__(self, make: Callable[..., Identify], recorder: AuditRecorder, matching: Matching) -> None:
        """`make` is Identify with everything but its matching and its trail."""
        self._make = make
        self._recorder = recorder
        self._matching = matching

    def __call__(self, details: Mapping[str, str], matching: Matching | None = None) -> Identify:
        """`details` stand in every entry that the search writes."""
        # Only what people here search in the whole gallery is repeated with another model.
        plain = {} if matching is None and not details else {"shadow": None}
        return self._make(matching=matching or self._matching, trail=SearchTrail(self._recorder, details), **plain)
