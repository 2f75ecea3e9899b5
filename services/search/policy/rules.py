"""The rules in force at one moment: policies, watchlists, agreements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from threading import Lock
from typing import Protocol

from services.search.identification.requests import SearchRequest
from services.search.policy.decision import Decision
from services.search.policy.engine import PolicyEngine
from services.search.policy.text import PolicySource
from services.shared.tokens import Principal
from services.shared.watchlists import Watchlists


class WatchlistSource(Protocol):
    """The configured file, alone (`WatchlistFile`) or with the registered agreements (`AgreementBook`)."""

    def current(self) -> Watchlists:
        """Raises ConfigurationError, DependencyUnavailable: then nothing is decided."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What one decision is made by; taken once a decision, so that no change comes between its parts."""

    engine: PolicyEngine
    watchlists: Watchlists

    def decide(self, principal: Principal, request: SearchRequest, today: date) -> Decision:
        return self.engine.decide(principal, request, self.watchlists, today)

    def permits(
        self, principal: Principal, request: SearchRequest, watchlist_id: str, owners: Iterable[str], today: date
    ) -> frozenset[str]:
        """Of these owners those whose references in the watchlist may be searched, each decided by name."""
        return self.engine.permits(principal, request, self.watchlists, watchlist_id, owners, today)


class Rulebook:
    """The rules as they stand now. Safe for several threads."""

    def __init__(self, policies: PolicySource, watchlists: WatchlistSource) -> None:
        self._policies = policies
        self._watchlists = watchlists
        self._lock = Lock()
        self._engine: PolicyEngine | None = None

    def current(self) -> Rules:
        """Raises ConfigurationError, DependencyUnavailable."""
        text = self._policies.current()
        with self._lock:
            if self._engine is None or self._engine.text is not text:
                self._engine = PolicyEngine(text)
            engine = self._engine
        return Rules(engine, self._watchlists.current())
