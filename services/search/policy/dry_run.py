"""What would have been decided otherwise: a changed policy over the requests that came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.search.identification.requests import SearchRequest
from services.search.policy.decision import Decision
from services.search.policy.rules import Rules
from services.shared.tokens import Principal

MAX_DIFFERENCES = 1000


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as it came: a search that was opened, or one that the policy denied and that has no search."""

    request_id: str
    opened_at: datetime
    principal: Principal
    request: SearchRequest
    was_permitted: bool


class RequestRecords(Protocol):
    """What search keeps of the requests that came. Both raise DependencyUnavailable."""

    def denied(self, request_id: str, principal: Principal, request: SearchRequest, decision: Decision) -> None:
        """Keep a request that was denied, as of now."""
        ...

    def since(self, moment: datetime, force: str, limit: int) -> Sequence[RecordedRequest]:
        """The newest requests of a force since a moment, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Difference:
    """One request and what each set of rules says of it."""

    recorded: RecordedRequest
    now: Decision
    changed: Decision


@dataclass(frozen=True, slots=True)
class DryRun:
    """`differences` are the first of `differing`; `drifted`: how many the rules in force already decide otherwise.

    `left_out_before`: there were more requests than are looked at, and of the month those before this time were not.
    """

    considered: int
    differing: int
    newly_permitted: int
    newly_denied: int
    drifted: int
    differences: Sequence[Difference]
    left_out_before: datetime | None = None


def dry_run(recorded: Iterable[RecordedRequest], now: Rules, changed: Rules) -> DryRun:
    """Decide each request by both sets of rules, each as of the day on which it came."""
    considered = differing = permitted = denied = drifted = 0
    differences: list[Difference] = []
    for one in recorded:
        day = one.opened_at.date()
        before = now.decide(one.principal, one.request, day)
        after = changed.decide(one.principal, one.request, day)
        considered += 1
        drifted += before.is_permitted != one.was_permitted
        if (before.scopes, before.denials) == (after.scopes, after.denials):
            continue
        differing += 1
        permitted += after.is_permitted and not before.is_permitted
        denied += before.is_permitted and not after.is_permitted
        if len(differences) < MAX_DIFFERENCES:
            differences.append(Difference(one, before, after))
    return DryRun(considered, differing, permitted, denied, drifted, differences)
