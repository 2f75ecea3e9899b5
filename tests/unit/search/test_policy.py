from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from services.search.identification.requests import ProbeSource, SearchRequest
from services.search.policy import Decision, PermittedScope, PolicyEngine, PolicyFolder, decide
from services.shared.errors import Forbidden
from services.shared.tokens import Principal
from services.shared.watchlists import Watchlists, parse_watchlists

TODAY = date(2026, 6, 1)
WATCHLISTS = """
[[watchlist]]
id = "custody"
title = "Custody"
shared_with = "owner"
needs_agreement = false
lawful_bases = ["pace"]
purposes = ["prevention_and_detection", "missing_person"]

[[watchlist]]
id = "own_by_agreement"
title = "Own, by agreement"
shared_with = "owner"
needs_agreement = true
lawful_bases = ["pace"]
purposes = ["prevention_and_detection"]

[[watchlist]]
id = "liberal"
title = "Signatories"
shared_with = "signatories"
needs_agreement = true
lawful_bases = ["pace"]
purposes = ["prevention_and_detection"]

[[watchlist]]
id = "national"
title = "Anybody"
shared_with = "any"
needs_agreement = false
lawful_bases = ["pace"]
purposes = ["prevention_and_detection"]

[[watchlist]]
id = "national_by_agreement"
title = "Anybody, by agreement"
shared_with = "any"
needs_agreement = true
lawful_bases = ["pace"]
purposes = ["prevention_and_detection"]
"""
AGREEMENT = """
[[agreement]]
reference = "{reference}"
watchlist = "{watchlist}"
owner = "{owner}"
signed_on = {signed_on}
expires_on = {expires_on}
"""


def agreement(
    reference: str, watchlist: str, owner: str, signed_on: str = "2026-01-01", expires_on: str = "2027-01-01"
) -> str:
    return AGREEMENT.format(
        reference=reference, watchlist=watchlist, owner=owner, signed_on=signed_on, expires_on=expires_on
    )


def watchlists(*agreements: str) -> Watchlists:
    return parse_watchlists(WATCHLISTS + "".join(agreements), "test")


ALL = frozenset({"custody", "own_by_agreement", "liberal", "national", "national_by_agreement"})
OPERATOR = Principal("op-7", "northshire", frozenset({"operator"}), ALL)


def request(*names: str, purpose: str = "prevention_and_detection") -> SearchRequest:
    return SearchRequest("C-1", purpose, "burglary", ProbeSource.CCTV, names)


def codes(decision: Decision) -> list[str]:
    assert not decision.is_permitted
    assert not decision.scopes
    return [denial.code for denial in decision.denials]


def test_owner_watchlists_permit_the_callers_own_force_alone() -> None:
    decision = decide(OPERATOR, request("custody"), watchlists(), TODAY)
    assert decision.is_permitted
    assert decision.scopes == (PermittedScope("custody", frozenset({"northshire"})),)


@pytest.mark.parametrize("roles", [(), ("auditor",), ("administrator", "custodian", "supervisor"), ("Operator",)])
def test_no_other_role_searches(roles: tuple[str, ...]) -> None:
    principal = replace(OPERATOR, roles=frozenset(roles))
    assert codes(decide(principal, request("custody"), watchlists(), TODAY)) == ["role_missing"]


def test_a_watchlist_that_the_token_does_not_name_denies_all_of_the_request() -> None:
    principal = replace(OPERATOR, watchlists=frozenset({"custody"}))
    decision = decide(principal, request("custody", "national"), watchlists(), TODAY)
    assert codes(decision) == ["watchlist_not_permitted"]


def test_a_watchlist_that_does_not_exist_is_denied_even_when_the_token_names_it() -> None:
    principal = replace(OPERATOR, watchlists=frozenset({"secret"}))
    assert codes(decide(principal, request("secret"), watchlists(), TODAY)) == ["watchlist_not_permitted"]


def test_nothing_asked_for_is_nothing_permitted() -> None:
    assert codes(decide(OPERATOR, request(), watchlists(), TODAY)) == ["no_watchlist"]


def test_the_purpose_has_to_be_one_of_every_watchlist() -> None:
    decision = decide(OPERATOR, request("custody", "national", purpose="missing_person"), watchlists(), TODAY)
    assert codes(decision) == ["purpose_not_permitted"]
    assert decide(OPERATOR, request("custody", purpose="missing_person"), watchlists(), TODAY).is_permitted
    assert codes(decide(OPERATOR, request("custody", purpose=""), watchlists(), TODAY)) == ["purpose_not_permitted"]


def test_all_denials_are_listed() -> None:
    principal = replace(OPERATOR, roles=frozenset(), watchlists=frozenset({"liberal"}))
    decision = decide(principal, request("custody", "liberal"), watchlists(), TODAY)
    assert codes(decision) == ["role_missing", "watchlist_not_permitted", "no_agreement_in_force"]
    with pytest.raises(Forbidden) as refused:
        decision.require()
    assert refused.value.context["reasons"] == codes(decision)
    assert refused.value.advice


def test_signatories_search_each_other_while_in_force() -> None:
    configured = watchlists(
        agreement("A-N", "liberal", "northshire"),
        agreement("A-E", "liberal", "eastmoor"),
        agreement("A-W", "liberal", "westhaven", expires_on="2026-06-01"),
        agreement("A-S", "liberal", "southport", signed_on="2026-06-02"),
        agreement("A-X", "national_by_agreement", "exwick"),
    )
    (scope,) = decide(OPERATOR, request("liberal"), configured, TODAY).scopes
    assert scope == PermittedScope("liberal", frozenset({"northshire", "eastmoor"}), ("A-N", "A-E"))
    (scope,) = decide(OPERATOR, request("liberal"), configured, date(2026, 5, 31)).scopes
    assert scope.owners == frozenset({"northshire", "eastmoor", "westhaven"})


def test_of_owners_that_stand_in_the_gallery_only_the_permitted_are_searched() -> None:
    """Each decided by name: what stands in a partition is no permission to search it."""
    engine = PolicyEngine(PolicyFolder().current())
    configured = watchlists(agreement("A-N", "liberal", "northshire"), agreement("A-E", "liberal", "eastmoor"))
    standing = ("northshire", "eastmoor", "westhaven")
    asked = request("liberal", "custody")
    assert engine.permits(OPERATOR, asked, configured, "liberal", standing, TODAY) == {"northshire", "eastmoor"}
    assert engine.permits(OPERATOR, asked, configured, "custody", standing, TODAY) == {"northshire"}


def test_a_force_whose_own_agreement_is_not_in_force_searches_nobody() -> None:
    others = (agreement("A-E", "liberal", "eastmoor"),)
    assert codes(decide(OPERATOR, request("liberal"), watchlists(*others), TODAY)) == ["no_agreement_in_force"]
    expired = (*others, agreement("A-N", "liberal", "northshire", expires_on="2026-06-01"))
    assert codes(decide(OPERATOR, request("liberal"), watchlists(*expired), TODAY)) == ["no_agreement_in_force"]


def test_own_references_that_need_an_agreement() -> None:
    assert codes(decide(OPERATOR, request("own_by_agreement"), watchlists(), TODAY)) == ["no_agreement_in_force"]
    configured = watchlists(
        agreement("A-N", "own_by_agreement", "northshire"), agreement("A-E", "own_by_agreement", "eastmoor")
    )
    (scope,) = decide(OPERATOR, request("own_by_agreement"), configured, TODAY).scopes
    assert scope == PermittedScope("own_by_agreement", frozenset({"northshire"}), ("A-N",))


def test_any_force_may_be_searched_where_the_watchlist_says_so() -> None:
    (scope,) = decide(OPERATOR, request("national"), watchlists(), TODAY).scopes
    assert scope == PermittedScope("national", None)


def test_any_but_only_by_agreement() -> None:
    assert codes(decide(OPERATOR, request("national_by_agreement"), watchlists(), TODAY)) == ["no_agreement_in_force"]
    configured = watchlists(agreement("A-E", "national_by_agreement", "eastmoor"))
    (scope,) = decide(OPERATOR, request("national_by_agreement"), configured, TODAY).scopes
    assert scope == PermittedScope("national_by_agreement", frozenset({"eastmoor"}), ("A-E",))


def test_one_scope_a_watchlist_in_the_order_asked() -> None:
    decision = decide(OPERATOR, request("national", "custody"), watchlists(), TODAY)
    assert [scope.watchlist_id for scope in decision.scopes] == ["national", "custody"]
