"""Policies as files: what is accepted, how they are explained, and the table that holds them to what was meant."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from services.cli import assemble
from services.search.identification.requests import ProbeSource, SearchRequest
from services.search.policy import PolicyEngine, PolicyFolder, PolicyText, Rulebook
from services.search.policy import review as policy_review
from services.search.policy.cli import _change, _print_outcome
from services.search.policy.dry_run import RecordedRequest
from services.search.policy.review import PolicyReview
from services.search.policy.table import COLUMNS, read_table, run_table
from services.search.policy.text import POLICIES, SCHEMA, packaged
from services.shared.clock import SystemClock
from services.shared.errors import ConfigurationError, InvalidRequest
from services.shared.tokens import Principal
from services.shared.watchlists import CaseType, WatchlistFile, parse_watchlists
from tests.unit.search.fakes import OPERATOR, REQUEST

TODAY = date(2026, 6, 1)
PACKAGED = packaged(POLICIES)


def engine(*extra: str) -> PolicyEngine:
    return PolicyEngine(PolicyText("\n".join((PACKAGED, *extra)), packaged(SCHEMA), "test"))


def reasons(decider: PolicyEngine, principal: Principal = OPERATOR, request: SearchRequest = REQUEST) -> list[str]:
    decision = decider.decide(principal, request, WatchlistFile().current(), TODAY)
    return [denial.code for denial in decision.denials]


def test_the_packaged_policies_decide_the_packaged_table_as_it_says() -> None:
    table = read_table(Path(__file__).parents[3] / "services/search/policy/cases.csv")
    results = run_table(table, engine(), WatchlistFile().current())
    assert [result.case.name for result in results if not result.is_as_expected] == []
    assert len(results) >= 16
    denied = {word for result in results if result.found.startswith("deny") for word in result.found.split()[1:]}
    permits = {"own_references", "between_signatories", "shared_with_every_force"}
    assert denied == set(engine().text.ids) - permits


def test_a_forbid_outweighs_every_permit_and_tells_its_own_words() -> None:
    stricter = engine(
        '@id("not_in_august") @detail("No {purpose} of {watchlist} for {force} in August.")'
        'forbid (principal, action, resource) when { context.purpose == "prevention_and_detection" };'
    )
    decision = stricter.decide(OPERATOR, REQUEST, WatchlistFile().current(), TODAY)
    assert [(d.code, d.detail) for d in decision.denials] == [
        ("not_in_august", "No prevention_and_detection of custody for northshire in August.")
    ]
    assert decision.policy != engine().text.digest


def test_without_a_permit_nothing_is_permitted() -> None:
    only_forbids = PACKAGED[PACKAGED.index('@id("role_missing")') :]
    decider = PolicyEngine(PolicyText(only_forbids, packaged(SCHEMA), "test"))
    assert reasons(decider) == ["not_permitted"]
    assert reasons(PolicyEngine(PolicyText("", packaged(SCHEMA), "test"))) == ["not_permitted"]


def test_a_policy_that_cannot_be_evaluated_denies() -> None:
    # Cedar alone would skip this forbid and permit: the sum overflows only when it is evaluated.
    broken = '@id("broken") forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };'
    assert reasons(engine(broken)) == ["policy_undecided"]


def test_one_owner_is_singled_out_by_name_in_a_watchlist_that_every_force_may_search() -> None:
    known = parse_watchlists(WATCHLISTS_OF_ANY, "test")
    decider = engine('@id("not_eastmoor") forbid (principal, action, resource) when { resource.owner == "eastmoor" };')
    principal = replace(OPERATOR, watchlists=frozenset({"national"}))
    request = replace(REQUEST, watchlists=("national",))
    assert decider.decide(principal, request, known, TODAY).scopes[0].owners is None
    owners = decider.permits(principal, request, known, "national", ["eastmoor", "westhaven", "northshire"], TODAY)
    assert owners == {"westhaven", "northshire"}
    assert decider.permits(principal, request, known, "no_such", ["eastmoor"], TODAY) == frozenset()


@pytest.mark.parametrize(
    ("policies", "says"),
    [
        ("permit (principal", "policies"),
        ("permit (principal, action, resource);", "no @id"),
        ('@id("a") permit (principal, action, resource);\n' * 2, "one @id"),
        ('@id("a") permit (principal, action, resource) when { resource.colour == "red" };', "colour"),
        ('@id("a") permit (principal, action, resource) when { context.purpose > 3 };', "Long"),
        ('@id("a") permit (principal == ?principal, action, resource);', "templates"),
    ],
    ids=["syntax", "no id", "two of one id", "unknown attribute", "types", "template"],
)
def test_what_does_not_hold_together_is_refused_and_says_where(tmp_path: Path, policies: str, says: str) -> None:
    (tmp_path / POLICIES).write_text(policies)
    with pytest.raises(ConfigurationError) as refused:
        PolicyFolder(tmp_path).current()
    assert str(tmp_path) in refused.value.detail
    if says != "policies":
        assert says in refused.value.detail


def test_a_changed_policy_counts_from_the_next_decision_and_a_lost_one_permits_nothing(tmp_path: Path) -> None:
    path = tmp_path / POLICIES
    path.write_text(PACKAGED)
    rules = Rulebook(PolicyFolder(tmp_path), WatchlistFile())
    first = rules.current()
    assert first.decide(OPERATOR, REQUEST, TODAY).is_permitted
    assert rules.current().engine is first.engine
    path.write_text(PACKAGED + '@id("closed") forbid (principal, action, resource);')
    os.utime(path, ns=(1, 1))
    assert not rules.current().decide(OPERATOR, REQUEST, TODAY).is_permitted
    path.unlink()
    with pytest.raises(ConfigurationError):
        rules.current()


@settings(max_examples=60, deadline=None)
@given(
    roles=st.frozensets(st.sampled_from(["operator", "auditor", "administrator", "custodian"])),
    force=st.sampled_from(["northshire", "eastmoor", "westhaven", "*", ""]),
    token=st.frozensets(st.sampled_from(["custody", "sex_offenders", "op_liberal", "no_such"])),
    trained=st.sampled_from([None, date(2026, 6, 1), date(2026, 6, 2)]),
    asked=st.lists(st.sampled_from(["custody", "sex_offenders", "op_liberal", "no_such"]), unique=True),
    purpose=st.sampled_from(["prevention_and_detection", "missing_person", "safeguarding", "curiosity"]),
    case_type=st.sampled_from(list(CaseType)),
)
def test_what_is_permitted_is_what_the_unit_was_told(  # noqa: PLR0917 - the dimensions of a decision
    roles: frozenset[str],
    force: str,
    token: frozenset[str],
    trained: date | None,
    asked: list[str],
    purpose: str,
    case_type: CaseType,
) -> None:
    """The same rules written a second time, in Python and for one day, decide the same."""
    known = WatchlistFile().current()
    principal = Principal("p", force, roles, token, trained)
    request = SearchRequest("C", purpose, "o", ProbeSource.CCTV, tuple(asked), case_type=case_type)
    decision = DECIDER.decide(principal, request, known, TODAY)
    signatories = {"northshire", "eastmoor"}
    expected = bool(asked) and "operator" in roles and trained == date(2026, 6, 2) and force != "*"
    for name in asked:
        watchlist = known.get(name)
        expected = expected and watchlist is not None and name in token
        expected = expected and watchlist is not None and purpose in watchlist.purposes
        expected = expected and watchlist is not None and case_type in watchlist.case_types
        expected = expected and (name != "op_liberal" or force in signatories)
    assert decision.is_permitted == expected
    assert decision.is_permitted == (not decision.denials)
    for scope in decision.scopes:
        assert set(scope.owners or ()) == (signatories if scope.watchlist_id == "op_liberal" else {force})


DECIDER = engine()
HEADER = ",".join(COLUMNS)
ROW = "a case,operator,northshire,custody,2027-01-01,custody,{purpose},suspect,2026-06-01,,{expect}"


@pytest.mark.parametrize(
    ("expect", "status", "said"),
    [
        ("permit custody=northshire", 0, "1 cases, 0 differ"),
        ("permit custody=eastmoor", 1, "decided   permit custody=northshire"),
        ("deny role_missing", 1, "1 cases, 1 differ"),
    ],
)
def test_the_command_compares_a_table(tmp_path: Path, expect: str, status: int, said: str) -> None:
    table = tmp_path / "cases.csv"
    table.write_text(f"{HEADER}\n{ROW.format(purpose='prevention_and_detection', expect=expect)}\n")
    result = CliRunner().invoke(assemble(["policy"]), ["policy", "test", str(table)])
    assert result.exit_code == status, result.output
    assert said in result.output


@pytest.mark.parametrize(
    "rows",
    ["", ROW.format(purpose="p", expect="maybe"), "x", "\n", ROW.format(purpose="p", expect="deny x,y")],
    ids=["columns", "expect", "cells", "no case", "a comma too many"],
)
def test_a_table_that_cannot_be_read_names_its_line(tmp_path: Path, rows: str) -> None:
    table = tmp_path / "cases.csv"
    table.write_text(f"{HEADER if rows else 'name,roles'}\n{rows}\n")
    with pytest.raises(ConfigurationError, match="line"):
        read_table(table)


def test_a_table_speaks_of_the_last_day_of_february_and_may_come_from_a_spreadsheet(tmp_path: Path) -> None:
    row = ROW.replace("2026-06-01,", "2028-02-29,op_liberal/northshire").format(purpose="p", expect="deny x")
    (tmp_path / "cases.csv").write_text(f"\ufeff{HEADER}\n{row}\n", "utf-8")
    [case] = read_table(tmp_path / "cases.csv")
    assert case.agreements is not None
    assert case.agreements[0].is_in_force(date(2028, 2, 29))


class _Nobody:
    """Records of some requests, one a day, no agreements, and a log that takes every entry."""

    def __init__(self, requests: int = 1) -> None:
        self.requests = requests

    def records(self) -> tuple[()]:
        return ()

    def since(self, moment: datetime, force: str, limit: int) -> list[RecordedRequest]:
        came = (datetime(2026, 6, day, tzinfo=UTC) for day in range(1, self.requests + 1))
        return [RecordedRequest(f"r-{at.day}", at, OPERATOR, REQUEST, was_permitted=True) for at in came][-limit:]

    def record(self, *about: object, **told: object) -> None: ...


def test_a_dry_run_tries_a_schema_that_comes_alone_and_the_one_in_force_where_none_comes(tmp_path: Path) -> None:
    own = packaged(SCHEMA).replace("case_type: String", "case_type: String, wing?: String")
    assert own != packaged(SCHEMA)
    (tmp_path / POLICIES).write_text(PACKAGED)
    (tmp_path / SCHEMA).write_text(own)
    nobody = cast("Any", _Nobody())
    rules = Rulebook(PolicyFolder(tmp_path), WatchlistFile())
    review = PolicyReview(rules, nobody, nobody, nobody, SystemClock())
    administrator = replace(OPERATOR, roles=frozenset({"administrator"}))
    with pytest.raises(InvalidRequest):  # a policy speaks of what it no longer has
        review.try_change(administrator, None, own.replace("case_type", "kind_of_case"), None)
    speaks_of_own = '@id("east") forbid (principal, action, resource) when { context has wing && context.wing == "E" };'
    outcome, _now, changed = review.try_change(administrator, PACKAGED + speaks_of_own, None, None)
    assert (outcome.considered, outcome.differing, changed.engine.text.schema_source) == (1, 0, own)


@pytest.mark.parametrize(("requests", "left_out_before"), [(3, None), (5, datetime(2026, 6, 3, tzinfo=UTC))])
def test_a_dry_run_says_what_of_the_month_it_did_not_look_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], requests: int, left_out_before: datetime | None
) -> None:
    monkeypatch.setattr(policy_review, "MAX_REQUESTS", 3)
    nobody = cast("Any", _Nobody(requests))
    review = PolicyReview(Rulebook(PolicyFolder(None), WatchlistFile()), nobody, nobody, nobody, SystemClock())
    outcome, *_rules = review.try_change(replace(OPERATOR, roles=frozenset({"administrator"})), None, None, None)
    assert (outcome.considered, outcome.left_out_before) == (3, left_out_before)
    _print_outcome({**asdict(outcome), "differences": []})
    assert ("NOT ALL OF THE MONTH" in capsys.readouterr().out) == (left_out_before is not None)


def test_the_command_sends_a_schema_as_one(tmp_path: Path) -> None:
    (tmp_path / SCHEMA).write_text("entity Person;")
    assert _change(tmp_path) == _change(tmp_path / SCHEMA) == {"cedar_schema": "entity Person;"}


WATCHLISTS_OF_ANY = """
[[watchlist]]
id = "national"
title = "Anybody"
shared_with = "any"
needs_agreement = false
lawful_bases = ["pace"]
purposes = ["prevention_and_detection"]
"""
