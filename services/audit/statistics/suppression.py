"""Small counts are not published, nor anything that they could be worked out from.

A count from 1 to 4 could point at a person and is withheld. Whoever knows that rows and columns add up could still work
it out from the others, so whole rows are withheld with it:

1. a row of which any count is small shows its first column alone, how many there were; where that is small, nothing;
2. in one table at least two rows are withheld that way, or none: the smallest other row goes with a lone one;
3. rows withheld altogether have room between them: 1 + 1 = 2 would tell both;
4. where even the row WHOLE of one table has to go, nothing of the same facts is shown in any table: not even which
   rows there are, for each holds one at least, and twelve requests in twelve months would be one in each.

Within withheld rows zeros are withheld as well, so that nothing tells where the small counts lie. A test attacks this
with linear programming over everything that is published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.audit.statistics.tables import WHOLE, Row, Table

SMALLEST = 5
# How much rows withheld altogether may vary by, given that each holds one at least.
MIN_ROOM = 4

Cell = tuple[str, str]
Sum = tuple[Cell, tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table as it is published: None where a count is withheld."""

    name: str
    sums: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, Mapping[str, int | None]]


@dataclass(slots=True)
class _Withheld:
    """Of one table: categories that show nothing, and those that show how many there were."""

    all_of: set[str]
    parts_of: set[str]


def suppressed(tables: Sequence[Table]) -> list[PublishedTable]:
    """Tables of the same facts: their rows WHOLE are one and the same."""
    found = [_withheld(table) for table in tables]
    if any(WHOLE in withheld.all_of for withheld in found):
        found = [_Withheld(set(table.rows), set()) for table in tables]
    return [_published(table, withheld) for table, withheld in zip(tables, found, strict=True)]


def nothing_of(table: PublishedTable) -> PublishedTable:
    """The table with its row WHOLE alone, withheld."""
    return PublishedTable(table.name, table.sums, {WHOLE: dict.fromkeys(table.rows[WHOLE])})


def sums_of(table: Table | PublishedTable) -> Iterator[Sum]:
    """Every sum of a table: down each column to the WHOLE row, and along each row."""
    categories = [category for category in table.rows if category != WHOLE]
    if categories:  # a table of one row has nothing to add up down its columns
        for column in table.rows[WHOLE]:
            yield (WHOLE, column), tuple((category, column) for category in categories)
    for category in table.rows:
        for whole, parts in table.sums.items():
            yield (category, whole), tuple((category, part) for part in parts)


def _withheld(table: Table) -> _Withheld:
    first = table.columns[0]
    by_size = sorted((name for name in table.rows if name != WHOLE), key=lambda name: (table.rows[name][first], name))
    withheld = _Withheld(set(), set())
    for name, row in table.rows.items():
        if _is_small(row[first]):
            withheld.all_of.add(name)
        elif any(_is_small(count) for count in row.values()):
            withheld.parts_of.add(name)
    _give_room(table, by_size, withheld)
    _pair(by_size, withheld)
    return withheld


def _published(table: Table, withheld: _Withheld) -> PublishedTable:
    first = table.columns[0]
    standing = {WHOLE: table.rows[WHOLE]} if WHOLE in withheld.all_of else table.rows
    rows = {name: _shown(name, row, first, withheld) for name, row in standing.items()}
    return PublishedTable(table.name, table.sums, rows)


def _give_room(table: Table, by_size: Sequence[str], withheld: _Withheld) -> None:
    """Rule 3: withhold further rows altogether, smallest first, and the WHOLE where they do not suffice."""
    first = table.columns[0]
    hidden = [name for name in by_size if name in withheld.all_of]
    if not hidden or WHOLE in withheld.all_of:
        return
    for name in (name for name in by_size if name not in withheld.all_of):
        if _has_room(table, hidden, first):
            break
        hidden.append(name)
    withheld.all_of.update(hidden)
    withheld.parts_of.difference_update(hidden)
    if not _has_room(table, hidden, first):
        withheld.all_of.add(WHOLE)
        withheld.parts_of.discard(WHOLE)


def _has_room(table: Table, hidden: Sequence[str], first: str) -> bool:
    return len(hidden) > 1 and sum(table.rows[name][first] - 1 for name in hidden) >= MIN_ROOM


def _pair(by_size: Sequence[str], withheld: _Withheld) -> None:
    """Rule 2. Where the WHOLE withholds its parts too, nothing adds up to tell a lone row."""
    if WHOLE in withheld.parts_of or WHOLE in withheld.all_of:
        return
    hidden = [name for name in by_size if name in withheld.parts_of or name in withheld.all_of]
    others = [name for name in by_size if name not in hidden]
    if len(hidden) == 1 and withheld.parts_of and others:
        withheld.parts_of.add(others[0])


def _is_small(count: int) -> bool:
    return 0 < count < SMALLEST


def _shown(name: str, row: Row, first: str, withheld: _Withheld) -> Mapping[str, int | None]:
    if name in withheld.all_of:
        return dict.fromkeys(row)
    if name in withheld.parts_of:
        return {column: count if column == first else None for column, count in row.items()}
    return dict(row)
