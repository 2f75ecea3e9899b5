"""The checks that depend on the day, on the agreements and on the caller."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from services.ingest.enrolling.checks import LawfulnessChecks, require_custodian
from services.ingest.enrolling.enrolment import EnrolReference
from services.shared.errors import ConfigurationError, Forbidden, InvalidRequest
from services.shared.tokens import Principal
from services.shared.watchlists import WatchlistFile

WATCHLISTS = """
[[watchlist]]
id = "op_liberal"
title = "t"
shared_with = "signatories"
needs_agreement = true
lawful_bases = ["basis"]
purposes = ["p"]
[[agreement]]
reference = "OPL-1"
watchlist = "op_liberal"
owner = "northshire"
signed_on = 2026-01-05
expires_on = 2026-07-01
"""
COMMAND = EnrolReference("op_liberal", "northshire", "S1", "basis", "2026-01-10", image=b"x")


class FixedClock:
    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return 0.0


def checks(path: Path, day: str, hour: int = 12) -> LawfulnessChecks:
    file = path / "watchlists.toml"
    if not file.exists():
        file.write_text(WATCHLISTS)
    return LawfulnessChecks(WatchlistFile(file), FixedClock(datetime.fromisoformat(f"{day}T{hour:02d}:30:00+00:00")))


@pytest.mark.parametrize("day", ["2026-01-05", "2026-06-30"])
def test_the_agreement_in_force_is_named(tmp_path: Path, day: str) -> None:
    command = EnrolReference("op_liberal", "northshire", "S1", "basis", "2026-01-02", image=b"x")
    assert checks(tmp_path, day).check(command) == "OPL-1"


@pytest.mark.parametrize("day", ["2026-01-04", "2026-07-01"])
def test_before_its_signature_and_from_its_expiry_on_there_is_none(tmp_path: Path, day: str) -> None:
    command = EnrolReference("op_liberal", "northshire", "S1", "basis", "2026-01-02", image=b"x")
    with pytest.raises(InvalidRequest) as caught:
        checks(tmp_path, day).check(command)
    assert caught.value.code == "agreement_not_in_force"


def test_a_withdrawn_agreement_counts_at_once(tmp_path: Path) -> None:
    gate = checks(tmp_path, "2026-03-01")
    assert gate.check(COMMAND) == "OPL-1"
    (tmp_path / "watchlists.toml").write_text(WATCHLISTS + "withdrawn_on = 2026-02-01\n")
    with pytest.raises(InvalidRequest):
        gate.check(COMMAND)
    (tmp_path / "watchlists.toml").write_text("no toml")
    with pytest.raises(ConfigurationError):
        gate.check(COMMAND)


@pytest.mark.parametrize(
    ("captured_on", "hour", "is_taken"),
    [
        ("2026-03-01", 12, True),
        ("2026-03-02", 12, False),
        ("2026-03-02", 23, True),  # in British summer time it is the next day already
        ("1899-12-31", 12, False),
        ("2026-3-1", 12, False),
        ("20260301", 12, False),
        ("2026-W09-7", 12, False),
    ],
)
def test_the_day_of_capture(tmp_path: Path, captured_on: str, hour: int, is_taken: bool) -> None:
    gate = checks(tmp_path, "2026-03-01", hour)
    command = EnrolReference("op_liberal", "northshire", "S1", "basis", captured_on, image=b"x")
    if is_taken:
        gate.check(command)
        return
    with pytest.raises(InvalidRequest):
        gate.check(command)


@pytest.mark.parametrize("subject_id", ["", " S1", "S1\n", "x" * 201, "SYNTHETIC-000001", "a\u2028b"])
def test_identifiers_are_short_and_printable(tmp_path: Path, subject_id: str) -> None:
    command = EnrolReference("op_liberal", "northshire", subject_id, "basis", "2026-01-10", image=b"x")
    with pytest.raises(InvalidRequest):
        checks(tmp_path, "2026-03-01").check(command)


def test_only_a_custodian_of_the_owner_with_the_watchlist_enrols() -> None:
    good = Principal("c", "northshire", frozenset({"custodian"}), frozenset({"custody"}))
    require_custodian(good, "northshire", "custody")
    for principal, owner, watchlist_id in (
        (Principal("c", "northshire", frozenset({"administrator"}), frozenset({"custody"})), "northshire", "custody"),
        (good, "eastmoor", "custody"),
        (good, "northshire", "sex_offenders"),
    ):
        with pytest.raises(Forbidden):
            require_custodian(principal, owner, watchlist_id)


def test_an_identifier_has_one_spelling(tmp_path: Path) -> None:
    composed, decomposed = "NS-Jos\u00e9", "NS-Jose\u0301"
    assert checks(tmp_path, "2026-03-01").check(replace(COMMAND, subject_id=composed)) == "OPL-1"
    with pytest.raises(InvalidRequest, match="composed"):
        checks(tmp_path, "2026-03-01").check(replace(COMMAND, subject_id=decomposed))
