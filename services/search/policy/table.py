"""A table of cases that a policy must decide as it says: a CSV that a lawyer can read in a spreadsheet.

Columns: name, roles, force, token_watchlists, trained_until, watchlists, purpose, case_type, on, agreements, expect;
and, where a table wants to speak of it, nature.
Lists are parted by spaces. `agreements` is the empty cell for those of the watchlist file or, in its place,
`watchlist/owner` words; `expect` is `permit custody=northshire op_liberal=northshire+eastmoor` (`*` for every owner) or
`deny purpose_not_permitted`, with every reason in the order told.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from services.search.identification.requests import ImageNature, ProbeSource, SearchRequest
from services.search.policy.decision import Decision
from services.search.policy.engine import EVERY_OWNER, PolicyEngine
from services.shared.errors import ConfigurationError
from services.shared.tokens import Principal
from services.shared.watchlists import Agreement, CaseType, Watchlists

COLUMNS = (
    "name",
    "roles",
    "force",
    "token_watchlists",
    "trained_until",
    "watchlists",
    "purpose",
    "case_type",
    "on",
    "agreements",
    "expect",
)
OPTIONAL_COLUMNS = ("nature",)


@dataclass(frozen=True, slots=True)
class TableCase:
    """One row, read."""

    line: int
    name: str
    principal: Principal
    request: SearchRequest
    on: date
    # None for those of the watchlist file.
    agreements: tuple[Agreement, ...] | None
    expected: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    case: TableCase
    found: str

    @property
    def is_as_expected(self) -> bool:
        return self.found == self.case.expected


def read_table(path: Path) -> tuple[TableCase, ...]:
    """Raises ConfigurationError that names the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if tuple(name for name in rows.fieldnames or () if name not in OPTIONAL_COLUMNS) != COLUMNS:
                raise _wrong(path, 1, f"the columns must be {', '.join(COLUMNS)}")
            cases = tuple(_read_rows(path, rows))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _wrong(path, 0, str(error)) from error
    if not cases:  # of none, none differs: a file that was cut off would pass
        raise _wrong(path, 2, "there is no case in it")
    return cases


def run_table(cases: Sequence[TableCase], engine: PolicyEngine, watchlists: Watchlists) -> tuple[CaseResult, ...]:
    return tuple(
        CaseResult(case, describe(engine.decide(case.principal, case.request, _known(case, watchlists), case.on)))
        for case in cases
    )


def describe(decision: Decision) -> str:
    """A decision in the words of the column `expect`."""
    if not decision.is_permitted:
        return " ".join(("deny", *(denial.code for denial in decision.denials)))
    scopes = (f"{scope.watchlist_id}={'+'.join(sorted(scope.owners or {EVERY_OWNER}))}" for scope in decision.scopes)
    return " ".join(("permit", *scopes))


def _known(case: TableCase, watchlists: Watchlists) -> Watchlists:
    return watchlists if case.agreements is None else watchlists.with_agreements(case.agreements)


def _read_rows(path: Path, rows: csv.DictReader[str]) -> Iterator[TableCase]:
    for row in rows:
        if None in row:
            raise _wrong(path, rows.line_num, "more fields than columns; put a text with a comma in it into quotes")
        try:
            yield _case(rows.line_num, {name: (value or "").strip() for name, value in row.items()})
        except ValueError as error:
            raise _wrong(path, rows.line_num, str(error)) from error


def _case(line: int, row: dict[str, str]) -> TableCase:
    on = date.fromisoformat(row["on"])
    principal = Principal(
        person_id="table",
        force=row["force"],
        roles=frozenset(row["roles"].split()),
        watchlists=frozenset(row["token_watchlists"].split()),
        trained_until=date.fromisoformat(row["trained_until"]) if row["trained_until"] else None,
    )
    request = SearchRequest(
        case_reference="table",
        purpose=row["purpose"],
        offence="table",
        source=ProbeSource.OTHER,
        watchlists=tuple(row["watchlists"].split()),
        case_type=CaseType(row["case_type"] or CaseType.UNSTATED),
        nature=ImageNature(row.get("nature") or ImageNature.UNSTATED),
    )
    agreements = tuple(_agreement(word, on) for word in row["agreements"].split()) if row["agreements"] else None
    return TableCase(line, row["name"], principal, request, on, agreements, _expected(row["expect"]))


def _agreement(word: str, on: date) -> Agreement:
    watchlist, _, owner = word.partition("/")
    return Agreement(
        reference=word, watchlist=watchlist, owner=owner, signed_on=on, expires_on=on + timedelta(days=365)
    )


def _expected(text: str) -> str:
    words = text.split()
    if not words or words[0] not in {"permit", "deny"} or len(words) == 1:
        raise ValueError("`expect` is `permit watchlist=owners …` or `deny reasons …`")
    if words[0] == "deny":
        return " ".join(words)
    scopes = (word.partition("=") for word in words[1:])
    return " ".join(("permit", *(f"{name}={'+'.join(sorted(owners.split('+')))}" for name, _, owners in scopes)))


def _wrong(path: Path, line: int, what: str) -> ConfigurationError:
    where = f"{path}, line {line}" if line else str(path)
    return ConfigurationError(f"{where}: {what}", advice="docs/policy.md describes the table; mend that line.")
