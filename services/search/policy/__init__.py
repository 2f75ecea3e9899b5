"""Who may search what: policies as code, one decision, deny by default. See docs/policy.md."""

from __future__ import annotations

from datetime import date
from functools import cache

from services.search.identification.requests import SearchRequest
from services.search.policy.decision import Decision, Denial, PermittedScope
from services.search.policy.engine import PolicyEngine
from services.search.policy.rules import Rulebook, Rules, WatchlistSource
from services.search.policy.text import PolicyFolder, PolicySource, PolicyText
from services.shared.tokens import Principal
from services.shared.watchlists import Watchlists

__all__ = [
    "SEARCHING_ROLE",
    "Decision",
    "Denial",
    "PermittedScope",
    "PolicyEngine",
    "PolicyFolder",
    "PolicySource",
    "PolicyText",
    "Rulebook",
    "Rules",
    "WatchlistSource",
    "decide",
]

SEARCHING_ROLE = "operator"


def decide(principal: Principal, request: SearchRequest, watchlists: Watchlists, today: date) -> Decision:
    """The decision by the packaged policies: `PolicyEngine.decide`."""
    return _packaged().decide(principal, request, watchlists, today)


@cache
def _packaged() -> PolicyEngine:
    return PolicyEngine(PolicyFolder().current())
