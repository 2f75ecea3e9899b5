from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from services.shared.errors import ConfigurationError
from services.shared.watchlists import Agreement, WatchlistFile, parse_watchlists

LIBERAL = """
[[watchlist]]
id = "op_liberal"
title = "Op Liberal"
shared_with = "signatories"
needs_agreement = true
lawful_bases = ["pace_1984_s64a"]
purposes = ["prevention_and_detection"]

[[agreement]]
reference = "A-1"
watchlist = "op_liberal"
owner = "northshire"
signed_on = 2026-01-05
expires_on = 2031-01-05
"""


def agreement(**changes: object) -> Agreement:
    fields: dict[str, object] = {
        "reference": "A-1",
        "watchlist": "op_liberal",
        "owner": "northshire",
        "signed_on": date(2026, 1, 5),
        "expires_on": date(2031, 1, 5),
    }
    return Agreement.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("day", "is_in_force"),
    [
        (date(2026, 1, 4), False),
        (date(2026, 1, 5), True),
        (date(2031, 1, 4), True),
        (date(2031, 1, 5), False),
    ],
)
def test_an_agreement_counts_from_its_signing_to_the_day_before_its_expiry(day: date, is_in_force: bool) -> None:
    assert agreement().is_in_force(day) is is_in_force


def test_a_withdrawal_ends_an_agreement_on_its_day_and_never_lengthens_it() -> None:
    withdrawn = agreement(withdrawn_on=date(2027, 3, 1))
    assert withdrawn.is_in_force(date(2027, 2, 28))
    assert not withdrawn.is_in_force(date(2027, 3, 1))
    assert not agreement(withdrawn_on=date(2040, 1, 1)).is_in_force(date(2035, 1, 1))


def test_the_packaged_file_has_the_three_watchlists_of_the_unit() -> None:
    watchlists = WatchlistFile().current()
    assert watchlists.ids == ("custody", "sex_offenders", "op_liberal")
    assert "prevention_and_detection" in watchlists.purposes
    assert watchlists.signatories("op_liberal", date(2026, 6, 1)) == {"northshire", "eastmoor"}
    assert watchlists.signatories("op_liberal", date(2026, 2, 10)) == {"northshire"}
    assert watchlists.signatories("custody", date(2026, 6, 1)) == frozenset()
    found = watchlists.agreement_in_force("op_liberal", "eastmoor", date(2026, 6, 1))
    assert found is not None
    assert found.reference == "OPL-2026-EASTMOOR"
    assert watchlists.agreement_in_force("op_liberal", "eastmoor", date(2031, 2, 11)) is None


@pytest.mark.parametrize(
    "text",
    [
        "[[watchlist]",
        "[[watchlist]]\nid = 'x'",
        LIBERAL.replace('"op_liberal"', '"Op Liberal"'),
        LIBERAL + "\nunknown = 1",
        LIBERAL.replace('watchlist = "op_liberal"', 'watchlist = "custody"'),
        LIBERAL.replace('"signatories"', '"everybody"'),
        LIBERAL.replace("2031-01-05", '"some day"'),
        LIBERAL + LIBERAL,
    ],
)
def test_a_wrong_file_is_refused_and_says_where(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"lists\.toml"):
        parse_watchlists(text, "lists.toml")


def test_a_withdrawal_written_into_the_file_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "watchlists.toml"
    path.write_text(LIBERAL, "utf-8")
    file = WatchlistFile(path)
    day = date(2026, 6, 1)
    assert file.current().signatories("op_liberal", day) == {"northshire"}
    path.write_text(LIBERAL + "withdrawn_on = 2026-05-01\n", "utf-8")
    assert file.current().signatories("op_liberal", day) == frozenset()


@pytest.mark.parametrize("content", [None, b"[[", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_leaves_no_consent_in_force(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "watchlists.toml"
    path.write_text(LIBERAL, "utf-8")
    file = WatchlistFile(path)
    file.current()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            file.current()


def test_a_file_replaced_within_the_clock_tick_of_the_old_one_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "watchlists.toml"
    path.write_text(LIBERAL, "utf-8")
    file = WatchlistFile(path)
    file.current()
    stamp = path.stat()
    path.write_text(LIBERAL + "withdrawn_on = 2026-05-01\n", "utf-8")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert file.current().signatories("op_liberal", date(2026, 6, 1)) == frozenset()
