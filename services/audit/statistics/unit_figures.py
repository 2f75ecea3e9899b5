"""Figures for those who oversee the unit, exact and for their eyes: what is published is the transparency report.

A supervisor sees the figures of the own force, an auditor and an inspector those of the whole log. Small counts stand
here as they are: whoever may ask reads entries of the log or supervises the people in them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.audit.ports import LogStore
from services.audit.statistics.aggregates import Aggregates, published
from services.audit.statistics.gathering import FALSE_LEADS, Gatherer, RequestFact, SearchFact, ThresholdFact
from services.audit.statistics.intervals import Rate, wilson
from services.audit.statistics.tables import DECIDED, NOT_KNOWN, order_of
from services.audit.verification import Checkpoint

_Fact = TypeVar("_Fact")
_PORTION = 5000  # entries read at once, so that one reader does not keep the others from the store


@dataclass(frozen=True, slots=True)
class RequestFigures:
    """Requests of one category. Rates are None where their denominator is 0.

    `potential_name` is of those released, `unsuitable` of those decided (released or unsuitable).
    """

    category: str
    received: int
    decided: int
    released: int
    potential_name: Rate | None
    unsuitable: Rate | None


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a kind there are, and their rate of all of the same table."""

    category: str
    count: int
    rate: Rate | None


@dataclass(frozen=True, slots=True)
class UnitFigures:
    """`force`: whose requests and searches are counted, None for all. `entries`: how much of the log they are from.

    Tables by watchlist count a request or search once for each watchlist it named, so they do not add up to the whole.
    `false_leads` is of the potential names whose outcome is known.
    """

    force: str | None
    months: tuple[str, ...]
    known_months: tuple[str, ...]
    entries: int
    requests: RequestFigures
    requests_by: Mapping[str, Sequence[RequestFigures]]
    searches: int
    searches_by: Mapping[str, Sequence[Share]]
    refusals: Sequence[Share]
    outcomes: Sequence[Share]
    false_leads: Rate | None
    thresholds: Sequence[ThresholdFact]


class UnitStatistics:
    """Follows the log: every question reads the entries since the last one. Safe to call from many threads."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._gathered = Gatherer()
        self._taken = 0
        self._lock = threading.Lock()

    def figures(self, months: Sequence[str], force: str | None) -> UnitFigures:
        """Of requests received and searches made in these months ("2026-10"), all months when none is named.

        Raises AuditUnavailable when the log cannot be read.
        """
        with self._lock:
            self._catch_up()
            return _figures(self._gathered, self._taken, frozenset(months), force)

    def report(self, months: Sequence[str], checkpoint: Callable[[], Checkpoint]) -> tuple[Aggregates, tuple[str, ...]]:
        """What may be published of these months (all when none is named), and every month that the log knows.

        `checkpoint` signs the log as it stands. Raises AuditUnavailable when the log cannot be read.
        """
        with self._lock:
            self._catch_up()
            head = checkpoint()
            # Exactly what it covers: nobody else reads on while the lock is held.
            self._catch_up(head.tree_size)
            known = _known_months(self._gathered)
            keys = {key.key_id: key.public_key for key in self._store.published_keys()}
            return published(self._gathered, months or known, head, keys), known

    def _catch_up(self, size: int | None = None) -> None:
        size = self._store.size() if size is None else size
        while self._taken < size:
            end = min(self._taken + _PORTION, size)
            for entry in self._store.scan(self._taken, end):
                self._gathered.take(entry.facts())
                self._taken = entry.sequence + 1


def _known_months(gathered: Gatherer) -> tuple[str, ...]:
    requests = {one.month for one in gathered.requests.values() if not one.is_planted}
    return tuple(sorted(requests | {one.month for one in gathered.searches.values()}))


def _figures(gathered: Gatherer, entries: int, months: frozenset[str], force: str | None) -> UnitFigures:
    all_requests = [one for one in gathered.requests.values() if not _is_over(one) and force in (None, one.force)]
    all_searches = [one for one in gathered.searches.values() if force in (None, one.force)]
    known = sorted({one.month for one in all_requests} | {one.month for one in all_searches})
    requests = [one for one in all_requests if not months or one.month in months]
    searches = [one for one in all_searches if not months or one.month in months]
    answered = [one for one in searches if one.ended == "done"]
    refused = [one for one in searches if one.refused_for]
    named = [one for one in requests if one.has_name]
    return UnitFigures(
        force=force,
        months=tuple(sorted(months)) or tuple(known),
        known_months=tuple(known),
        entries=entries,
        requests=_request_figures("all", requests),
        requests_by=_requests_by(gathered, requests),
        searches=len(answered),
        searches_by={name: _shares(answered, key) for name, key in _SEARCHES_BY.items()},
        refusals=_shares(refused, lambda one: [one.refused_for]),
        outcomes=_shares(named, lambda one: [one.outcome or NOT_KNOWN]),
        false_leads=_false_leads(named),
        thresholds=sorted(gathered.thresholds.values(), key=lambda one: (one.watchlist, one.first_seen)),
    )


def _is_over(request: RequestFact) -> bool:
    """A planted probe that is closed. Until then it counts like any other: a figure that a new request does not move
    would tell a supervisor, who may be asked to judge it, which one it is."""
    return request.is_planted and bool(request.ended)


_SEARCHES_BY: Mapping[str, Callable[[SearchFact], Sequence[str]]] = {
    "purpose": lambda one: [one.purpose],
    "mode": lambda one: [one.mode],
    "source": lambda one: [one.source],
    "case_type": lambda one: [one.case_type],
    "force": lambda one: [one.force],
    "watchlist": lambda one: one.watchlists.split(" + "),
    "month": lambda one: [one.month],
}


def _requests_by(gathered: Gatherer, requests: Sequence[RequestFact]) -> dict[str, Sequence[RequestFigures]]:
    keys: Mapping[str, Callable[[RequestFact], Sequence[str]]] = {
        "quality": lambda one: [gathered.band(one)],
        "offence": lambda one: [one.offence],
        "force": lambda one: [one.force],
        "watchlist": lambda one: one.watchlists.split(" + "),
        "month": lambda one: [one.month],
    }
    made: dict[str, Sequence[RequestFigures]] = {}
    for name, key in keys.items():
        groups: dict[str, list[RequestFact]] = {}
        for one in requests:
            for category in key(one):
                groups.setdefault(category, []).append(one)
        made[name] = [_request_figures(category, groups[category]) for category in sorted(groups, key=order_of)]
    return made


def _request_figures(category: str, requests: Sequence[RequestFact]) -> RequestFigures:
    decided = [one for one in requests if one.ended in DECIDED]
    released = [one for one in decided if one.ended == "released"]
    return RequestFigures(
        category=category,
        received=len(requests),
        decided=len(decided),
        released=len(released),
        potential_name=wilson(sum(one.has_name for one in released), len(released)),
        unsuitable=wilson(len(decided) - len(released), len(decided)),
    )


def _shares(facts: Sequence[_Fact], key: Callable[[_Fact], Iterable[str]]) -> Sequence[Share]:
    counts: dict[str, int] = {}
    for one in facts:
        for category in key(one):
            counts[category] = counts.get(category, 0) + 1
    return [Share(name, counts[name], wilson(counts[name], len(facts))) for name in sorted(counts, key=order_of)]


def _false_leads(named: Sequence[RequestFact]) -> Rate | None:
    known = [one for one in named if one.outcome]
    return wilson(sum(one.outcome in FALSE_LEADS for one in known), len(known))
