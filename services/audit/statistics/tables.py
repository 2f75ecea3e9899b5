"""Counts in tables: one table a dimension, its rows adding up to the whole, its columns adding up to one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.audit.statistics.gathering import NOT_MEASURED, QUALITY_EDGES, Gatherer, RequestFact, SearchFact

Fact = TypeVar("Fact")
Row = dict[str, int]

# Which columns add up to which. A table keeps to them in every row.
REQUEST_SUMS: Mapping[str, tuple[str, ...]] = {
    "decided": ("released", "unsuitable"),
    "released": ("potential name", "no potential name"),
}
# Apart from the others, because few requests end in another way: beside them they would withhold everything else.
RECEIVED_SUMS: Mapping[str, tuple[str, ...]] = {"received": ("decided", "not decided")}
SEARCH_SUMS: Mapping[str, tuple[str, ...]] = {}
DECIDED = frozenset({"released", "unsuitable"})
WHOLE = "all"
OTHERS = "all others"
# A category with fewer would have to be withheld line by line: such categories are put together.
SMALLEST_CATEGORY = 5

BY_QUALITY, BY_MONTH, SEARCHES_BY_MONTH = "requests by probe quality", "requests by month", "searches by month"
RECEIVED = "requests received"
OUTCOMES, REFUSALS = "outcomes of potential names", "refused searches by reason"
POTENTIAL_NAMES, NOT_KNOWN = "potential names", "not known yet"
_WHOLE_CATEGORIES = frozenset({BY_QUALITY, BY_MONTH, SEARCHES_BY_MONTH})


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by category, columns by name; row WHOLE is the sum of all others."""

    name: str
    sums: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, Row]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.rows[WHOLE])


@dataclass(frozen=True)  # no slots: a generic class with them cannot be made with its type named
class _Kind(Generic[Fact]):
    columns: tuple[str, ...]
    sums: Mapping[str, tuple[str, ...]]
    count: Callable[[Fact], Iterable[str]]


def request_tables(gathered: Gatherer, months: frozenset[str], edges: Sequence[int] = QUALITY_EDGES) -> list[Table]:
    """Requests received in these months and decided since, known-answer probes left out, by each dimension."""
    facts = [one for one in _real(gathered, months) if one.ended in DECIDED]
    kind = _Kind[RequestFact](_columns(REQUEST_SUMS), REQUEST_SUMS, _request_columns)
    by: dict[str, Callable[[RequestFact], str]] = {
        BY_QUALITY: lambda one: gathered.band(one, edges),
        "requests by offence": lambda one: one.offence,
        "requests by force": lambda one: one.force,
        "requests by watchlists": lambda one: one.watchlists,
        BY_MONTH: lambda one: one.month,
    }
    return [_table(name, kind, facts, key, is_pooled=name not in _WHOLE_CATEGORIES) for name, key in by.items()]


def search_tables(gathered: Gatherer, months: frozenset[str]) -> list[Table]:
    """Searches of these months that were answered, by each dimension; those for known-answer probes are among them."""
    facts = [one for one in gathered.searches.values() if one.month in months and one.ended == "done"]
    kind = _Kind[SearchFact](("searches",), SEARCH_SUMS, lambda _one: ("searches",))
    by: dict[str, Callable[[SearchFact], str]] = {
        "searches by purpose": lambda one: one.purpose,
        "searches by mode": lambda one: one.mode,
        "searches by source": lambda one: one.source,
        "searches by case type": lambda one: one.case_type,
        "searches by force": lambda one: one.force,
        "searches by watchlists": lambda one: one.watchlists,
        SEARCHES_BY_MONTH: lambda one: one.month,
    }
    return [_table(name, kind, facts, key, is_pooled=name not in _WHOLE_CATEGORIES) for name, key in by.items()]


def outcome_tables(gathered: Gatherer, months: frozenset[str]) -> list[Table]:
    """What became of potential names, and why searches were refused: one column each."""
    named = [one for one in _real(gathered, months) if one.has_name]
    refused = [one for one in gathered.searches.values() if one.month in months and one.refused_for]
    outcomes = _Kind[RequestFact]((POTENTIAL_NAMES,), {}, lambda _one: (POTENTIAL_NAMES,))
    reasons = _Kind[SearchFact](("refused searches",), {}, lambda _one: ("refused searches",))
    return [
        _table(OUTCOMES, outcomes, named, lambda one: one.outcome or NOT_KNOWN, is_pooled=False),
        _table(REFUSALS, reasons, refused, lambda one: one.refused_for, is_pooled=True),
    ]


def received_table(gathered: Gatherer, months: frozenset[str]) -> Table:
    """How many requests came in, and how many of them have an end that is counted elsewhere."""
    kind = _Kind[RequestFact](
        _columns(RECEIVED_SUMS),
        RECEIVED_SUMS,
        lambda one: ("received", "decided" if one.ended in DECIDED else "not decided"),
    )
    return _table(RECEIVED, kind, _real(gathered, months), lambda _one: WHOLE, is_pooled=False)


def _real(gathered: Gatherer, months: frozenset[str]) -> list[RequestFact]:
    return [one for one in gathered.requests.values() if one.month in months and not one.is_planted]


def _columns(sums: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for whole, parts in sums.items() for name in (whole, *parts)))


def _request_columns(one: RequestFact) -> Iterable[str]:
    yield "decided"
    yield one.ended
    if one.ended == "released":
        yield "potential name" if one.has_name else "no potential name"


def _table(
    name: str, kind: _Kind[Fact], facts: Iterable[Fact], key: Callable[[Fact], str], *, is_pooled: bool
) -> Table:
    whole = dict.fromkeys(kind.columns, 0)
    rows: dict[str, Row] = {}
    for fact in facts:
        row = rows.setdefault(key(fact), dict.fromkeys(kind.columns, 0))
        for column in kind.count(fact):
            row[column] += 1
            whole[column] += 1
    if is_pooled:
        rows = _pooled(rows, kind.columns[0])
    rows.pop(WHOLE, None)
    others = sorted(rows, key=order_of)
    return Table(name, kind.sums, {WHOLE: whole, **{category: rows[category] for category in others}})


def order_of(category: str) -> tuple[bool, float, str]:
    """By name; bands from the lowest up, and what has no name last."""
    first, _, rest = category.removeprefix("under ").partition(" ")
    is_band = first.isdigit() and (category.startswith("under ") or rest.startswith(("to ", "and ")))
    edge = float(first) - category.startswith("under ") if is_band else 0.0
    return category in {OTHERS, NOT_MEASURED, NOT_KNOWN}, edge, category


def _pooled(rows: dict[str, Row], first: str) -> dict[str, Row]:
    """Small categories together; with the next larger one where they are few even then."""
    by_size = sorted(rows, key=lambda category: (rows[category][first], category))
    small = [category for category in by_size if rows[category][first] < SMALLEST_CATEGORY]
    if not small or len(rows) == 1:
        return rows
    for category in by_size[len(small) :]:
        if len(small) > 1 and sum(rows[one][first] for one in small) >= SMALLEST_CATEGORY:
            break
        small.append(category)
    pool = {column: sum(rows[one][column] for one in small) for column in rows[small[0]]}
    return {**{category: row for category, row in rows.items() if category not in small}, OTHERS: pool}
