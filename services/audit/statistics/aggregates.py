"""The published aggregates, form `likeness.transparency.v1`: what every figure of a report is worked out from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.audit.statistics.gathering import COARSE_EDGES, QUALITY_EDGES, Gatherer
from services.audit.statistics.suppression import SMALLEST, PublishedTable, nothing_of, sums_of, suppressed
from services.audit.statistics.tables import (
    BY_QUALITY,
    WHOLE,
    outcome_tables,
    received_table,
    request_tables,
    search_tables,
)
from services.audit.verification import Checkpoint, parse_checkpoint

FORMAT = "likeness.transparency.v1"


@dataclass(frozen=True, slots=True)
class Aggregates:
    """Published tables of a period, with the checkpoint of the log that they were counted from."""

    months: tuple[str, ...]
    tables: tuple[PublishedTable, ...]
    thresholds: tuple[Mapping[str, Any], ...]
    checkpoint: Checkpoint
    keys: Mapping[str, str]

    def table(self, name: str) -> PublishedTable:
        return next(table for table in self.tables if table.name == name)

    def document(self) -> bytes:
        """JSON, the same bytes for the same figures."""
        return orjson.dumps(
            {
                "format": FORMAT,
                "months": self.months,
                "rules": {
                    "smallest_published_count": SMALLEST,
                    "withheld": "null: 1 to 4, or something that such a count could be worked out from",
                    "quality_edges": QUALITY_EDGES,
                    "coarse_quality_edges": COARSE_EDGES,
                },
                "tables": [{"name": table.name, "sums": table.sums, "rows": table.rows} for table in self.tables],
                "thresholds": self.thresholds,
                "log": orjson.Fragment(self.checkpoint.document()),
                "keys": self.keys,
            },
            option=orjson.OPT_INDENT_2,
        )


def count(
    entries: Iterable[Mapping[str, Any]], months: Sequence[str], checkpoint: Checkpoint, keys: Mapping[str, str]
) -> Aggregates:
    """Count the first `tree_size` entries of a log for the report of these months ("2026-10")."""
    gathered = Gatherer()
    for entry in entries:
        if entry["sequence"] >= checkpoint.tree_size:
            break
        gathered.take(entry)
    return published(gathered, months, checkpoint, keys)


def published(gathered: Gatherer, months: Sequence[str], checkpoint: Checkpoint, keys: Mapping[str, str]) -> Aggregates:
    """What may be published of these months. `gathered` has taken what the checkpoint covers, and nothing after it."""
    wanted = frozenset(months)
    requests = _request_tables(gathered, wanted)
    outcomes, refusals = (suppressed([table])[0] for table in outcome_tables(gathered, wanted))
    if requests[0].rows[WHOLE]["potential name"] is None:
        # How many names there were stands in both: here it would tell how few requests ended without one.
        outcomes = nothing_of(outcomes)
    tables = [
        _all_or_nothing(suppressed([received_table(gathered, wanted)])[0]),
        *requests,
        *suppressed(search_tables(gathered, wanted)),
        outcomes,
        refusals,
    ]
    return Aggregates(tuple(sorted(wanted)), tuple(tables), _thresholds(gathered), checkpoint, dict(keys))


def _request_tables(gathered: Gatherer, months: frozenset[str]) -> list[PublishedTable]:
    """By fine bands of quality where every count of theirs can be published, else by two."""
    fine = suppressed(request_tables(gathered, months))
    by_quality = next(table for table in fine if table.name == BY_QUALITY)
    if all(counted is not None for row in by_quality.rows.values() for counted in row.values()):
        return fine
    return suppressed(request_tables(gathered, months, COARSE_EDGES))


def _all_or_nothing(table: PublishedTable) -> PublishedTable:
    """Its parts stand in other tables too: withholding some of them here would withhold nothing."""
    if all(counted is not None for row in table.rows.values() for counted in row.values()):
        return table
    return PublishedTable(table.name, table.sums, {name: dict.fromkeys(row) for name, row in table.rows.items()})


def months_of(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The months in which something was recorded, oldest first."""
    return sorted({entry["recorded_at"][:7] for entry in entries})


def parse_aggregates(content: bytes) -> Aggregates:
    """ValueError when it is something else, or contradicts itself: a sum that does not hold, a small count."""
    try:
        value = orjson.loads(content)
        if value["format"] != FORMAT:
            raise ValueError(f"it is of the form {value['format']!r}, not {FORMAT}")
        tables = tuple(PublishedTable(one["name"], one["sums"], one["rows"]) for one in value["tables"])
        read = Aggregates(
            tuple(value["months"]),
            tables,
            tuple(value["thresholds"]),
            parse_checkpoint(orjson.dumps(value["log"])),
            dict(value["keys"]),
        )
        for table in tables:
            _check(table)
    except (KeyError, TypeError, AttributeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"no aggregates of a transparency report: {error}") from error
    return read


def _check(table: PublishedTable) -> None:
    for category, row in table.rows.items():
        for column, counted in row.items():
            if counted is not None and 0 < counted < SMALLEST:
                raise ValueError(f"{table.name}: {column} of {category} is {counted}, which is never published")
    for whole, parts in sums_of(table):
        counts = [table.rows[category][column] for category, column in parts]
        total = table.rows[whole[0]][whole[1]]
        known = [counted for counted in counts if counted is not None]
        is_wrong = total is not None and (sum(known) > total or (len(known) == len(counts) and sum(known) != total))
        if is_wrong:
            raise ValueError(f"{table.name}: {whole[1]} of {whole[0]} is {total}, its parts make {sum(known)}")


def _thresholds(gathered: Gatherer) -> tuple[Mapping[str, Any], ...]:
    """Every threshold that was searched with, by the day on which it first was: two of one watchlist are a change."""
    found = sorted(gathered.thresholds.values(), key=lambda one: (one.watchlist, one.first_seen))
    return tuple(
        {"watchlist": one.watchlist, "threshold": one.stated, "first_used_on": one.first_seen[:10]} for one in found
    )
