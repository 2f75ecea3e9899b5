"""Whether an answer that was given once may be given again: the consent that it rested on has to stand today."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import orjson

from services.search.identification.acceptance import ANSWER_MARGIN
from services.search.identification.requests import ImageNature, ProbeSource, SearchMode, SearchRequest
from services.search.policy import Rulebook
from services.shared.clock import Clock
from services.shared.errors import Forbidden
from services.shared.tokens import Principal
from services.shared.watchlists import CaseType


class StandingPermission:
    """Asked before a stored candidate list is shown again, to whomever: by its id, by its idempotency key, in a
    consortium's answer.

    Only the owners of its candidates are asked about: the list says nothing of an owner that has none in it. A list is
    given whole or not at all, because the log has the digest of the whole.
    """

    def __init__(self, rules: Rulebook, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock

    def require(self, principal: Principal, result: bytes) -> None:
        """`result` is an answer's JSON. Raises Forbidden, ConfigurationError, DependencyUnavailable."""
        self.require_of(principal, orjson.loads(result))

    def require_of(self, principal: Principal, document: Mapping[str, Any]) -> None:
        """The same of an answer that was read already."""
        owners: dict[str, set[str]] = defaultdict(set)
        for candidate in document["candidates"]:
            owners[candidate["watchlist"]].add(candidate["owner"])
        if not owners:
            return
        rules, request = self._rules.current(), _asked(document["request"])
        today = (self._clock.now() + ANSWER_MARGIN).date()
        for watchlist_id, shown in owners.items():
            if not rules.permits(principal, request, watchlist_id, shown, today) >= shown:
                raise Forbidden(
                    "A permission that this answer rests on has ended, so it is not given out again.",
                    advice="Search again: what is permitted now is searched. Courts get it by disclosure.",
                    context={"reasons": ["permission_ended"], "policy": rules.engine.text.digest},
                )


def _asked(request: Mapping[str, Any]) -> SearchRequest:
    """As much of a request as a decision depends on."""
    return SearchRequest(
        case_reference="",
        purpose=str(request["purpose"]),
        offence="",
        source=ProbeSource.OTHER,
        watchlists=tuple(request["watchlists"]),
        mode=SearchMode(request["mode"]),
        case_type=CaseType(request.get("case_type") or CaseType.UNSTATED),
        # Answers from before it was asked for do not have it.
        nature=ImageNature(request.get("nature") or ImageNature.UNSTATED),
    )
