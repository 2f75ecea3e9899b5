"""The one decision function: Cedar policies over the caller, the request, the watchlists and the agreements.

Deny by default: what no `permit` names is denied, one `forbid` outweighs every `permit`, and a policy that cannot be
evaluated denies. Cedar itself would skip such a policy, and a skipped `forbid` is a permission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from typing import Any

import cedarpy

from services.search.identification.requests import SearchRequest
from services.search.policy.decision import Decision, Denial, PermittedScope
from services.search.policy.text import PolicyText
from services.shared.tokens import Principal
from services.shared.watchlists import Agreement, Watchlist, Watchlists

# The owner of a holding that stands for every owner of whom nothing is known.
EVERY_OWNER = "*"
# Decisions repeat: the same people ask for the same purposes all day long.
CACHED_DECISIONS = 4096

_ACTION = 'Likeness::Action::"search"'
_NO_WATCHLIST = Denial("no_watchlist", "No watchlist is named.")
_UNDECIDED = "The policy could not be evaluated, so nothing is permitted."

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Question:
    """All that a decision depends on; equal questions have equal answers."""

    principal: Principal
    purpose: str
    case_type: str
    nature: str
    mode: str
    watchlist_ids: tuple[str, ...]
    today: date


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the policies say of one holding: the ids of those that determined it."""

    owner: str
    is_permitted: bool
    policies: tuple[str, ...]
    is_undecided: bool


class PolicyEngine:
    """Decides by one set of policies. Immutable, safe for several threads; a changed policy is another engine."""

    def __init__(self, text: PolicyText) -> None:
        self.text = text
        # Answers for one state of the watchlists and agreements; another state starts anew.
        self._cached = lru_cache(maxsize=CACHED_DECISIONS)(self._decide)

    def decide(self, principal: Principal, request: SearchRequest, watchlists: Watchlists, today: date) -> Decision:
        """Whether the caller may search all the watchlists asked for, and whose references in them.

        One denial denies the whole request: a list that was quietly left out would look like one that was searched.
        """
        return self._cached(_question(principal, request, request.watchlists, today), _Known(watchlists))

    def permits(  # noqa: PLR0917 - a decision is about all of them
        self,
        principal: Principal,
        request: SearchRequest,
        watchlists: Watchlists,
        watchlist_id: str,
        owners: Iterable[str],
        today: date,
    ) -> frozenset[str]:
        """Of these owners those whose references in the watchlist may be searched, each decided by name."""
        question = _question(principal, request, (watchlist_id,), today)
        verdicts = self._asked(question, watchlist_id, watchlists, sorted(set(owners)))
        return frozenset(verdict.owner for verdict in verdicts if verdict.is_permitted)

    def _decide(self, question: _Question, known: _Known) -> Decision:
        watchlists = known.watchlists
        denials: dict[Denial, None] = {} if question.watchlist_ids else {_NO_WATCHLIST: None}
        scopes: list[PermittedScope] = []
        for watchlist_id in question.watchlist_ids:
            agreements = watchlists.agreements_in_force(watchlist_id, question.today)
            verdicts = self._asked(question, watchlist_id, watchlists, _owners(question.principal.force, agreements))
            if any(verdict.is_permitted for verdict in verdicts):
                scopes.append(_scope(watchlist_id, verdicts, agreements))
            else:
                denials.update(dict.fromkeys(self._denials(question, watchlist_id, verdicts)))
        ordered = sorted(denials, key=lambda denial: not self.text.is_about_caller(denial.code))
        return Decision(() if denials else tuple(scopes), tuple(ordered), self.text.digest, watchlists.digest)

    def _asked(
        self, question: _Question, watchlist_id: str, watchlists: Watchlists, owners: Sequence[str]
    ) -> list[_Verdict]:
        """One that does not exist is treated like one that the token does not permit."""
        watchlist = watchlists.get(watchlist_id)
        if watchlist is None:
            principal = question.principal
            principal = replace(principal, watchlists=principal.watchlists - {watchlist_id})
            return self._verdicts(replace(question, principal=principal), _absent(watchlist_id), watchlists, owners)
        return self._verdicts(question, watchlist, watchlists, owners)

    def _verdicts(
        self, question: _Question, watchlist: Watchlist, watchlists: Watchlists, owners: Sequence[str]
    ) -> list[_Verdict]:
        signatories = watchlists.signatories(watchlist.id, question.today)
        entities = [
            _person(question.principal),
            _watchlist(watchlist, signatories),
            *(_holding(watchlist.id, owner) for owner in owners),
        ]
        requests = [
            {
                "principal": _uid("Person", question.principal.person_id),
                "action": _ACTION,
                "resource": _uid("Holding", f"{watchlist.id}/{owner}"),
                "context": {
                    "purpose": question.purpose,
                    "case_type": question.case_type,
                    "nature": question.nature,
                    "mode": question.mode,
                    "today": _datetime(question.today),
                },
            }
            for owner in owners
        ]
        results = cedarpy.is_authorized_batch(requests, self.text.policies, entities, self.text.schema)
        return [self._verdict(owner, result) for owner, result in zip(owners, results, strict=True)]

    def _verdict(self, owner: str, result: cedarpy.AuthzResult) -> _Verdict:
        is_undecided = bool(result.diagnostics.errors) or result.decision is cedarpy.Decision.NoDecision
        policies = tuple(self.text.in_order(result.diagnostics.reasons))
        return _Verdict(owner, result.allowed and not is_undecided, policies, is_undecided)

    def _denials(self, question: _Question, watchlist_id: str, verdicts: Sequence[_Verdict]) -> list[Denial]:
        """What is about the caller, and of the rest the first alone: more would tell of what may not be seen."""
        if any(verdict.is_undecided for verdict in verdicts):
            return [Denial("policy_undecided", _UNDECIDED)]
        ids = list(self.text.in_order({name for verdict in verdicts for name in verdict.policies}))
        about_caller = [name for name in ids if self.text.is_about_caller(name)]
        others = [name for name in ids if name not in about_caller]
        told = [*about_caller, *others[:1]]
        if not told:
            return [Denial("not_permitted", f"No policy permits you to search {watchlist_id}.")]
        words = {
            "watchlist": watchlist_id,
            "purpose": question.purpose,
            "case_type": question.case_type,
            "nature": question.nature,
            "force": question.principal.force,
        }
        return [Denial(name, self.text.detail(name, words)) for name in told]


class _Known:
    """Watchlists and agreements as part of a cache's key: the same when they say the same."""

    __slots__ = ("watchlists",)

    def __init__(self, watchlists: Watchlists) -> None:
        self.watchlists = watchlists

    def __hash__(self) -> int:
        return hash(self.watchlists.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self.watchlists.digest == other.watchlists.digest


def _question(principal: Principal, request: SearchRequest, watchlist_ids: tuple[str, ...], today: date) -> _Question:
    return _Question(
        principal=principal,
        purpose=request.purpose,
        case_type=request.case_type.value,
        nature=request.nature.value,
        mode=request.mode.value,
        watchlist_ids=watchlist_ids,
        today=today,
    )


def _owners(force: str, agreements: Iterable[Agreement]) -> list[str]:
    """Whose holdings are asked about: the caller's, every signatory's, and that of all others together."""
    return [*sorted({force, *(agreement.owner for agreement in agreements)}), EVERY_OWNER]


def _scope(watchlist_id: str, verdicts: Sequence[_Verdict], agreements: Iterable[Agreement]) -> PermittedScope:
    permitted = [verdict for verdict in verdicts if verdict.is_permitted]
    policies = tuple(sorted({name for verdict in permitted for name in verdict.policies}))
    if any(verdict.owner == EVERY_OWNER for verdict in permitted):
        return PermittedScope(watchlist_id, None, (), policies)
    owners = frozenset(verdict.owner for verdict in permitted)
    relied_on = tuple(agreement.reference for agreement in agreements if agreement.owner in owners)
    return PermittedScope(watchlist_id, owners, relied_on, policies)


def _absent(watchlist_id: str) -> Watchlist:
    return Watchlist.model_construct(
        id=watchlist_id,
        title="",
        shared_with="owner",
        needs_agreement=False,
        lawful_bases=(),
        purposes=(),
        case_types=(),
        needs_training=False,
    )


def _uid(kind: str, name: str) -> Json:
    return {"type": f"Likeness::{kind}", "id": name}


def _datetime(day: date) -> Json:
    return {"__extn": {"fn": "datetime", "arg": day.isoformat()}}


def _person(principal: Principal) -> Json:
    trained = {} if principal.trained_until is None else {"trained_until": _datetime(principal.trained_until)}
    attributes: Mapping[str, Any] = {
        "force": principal.force,
        "roles": sorted(principal.roles),
        "watchlists": sorted(principal.watchlists),
        **trained,
    }
    return {"uid": _uid("Person", principal.person_id), "attrs": attributes, "parents": []}


def _watchlist(watchlist: Watchlist, signatories: Iterable[str]) -> Json:
    attributes = {
        "id": watchlist.id,
        "shared_with": watchlist.shared_with,
        "needs_agreement": watchlist.needs_agreement,
        "needs_training": watchlist.needs_training,
        "purposes": list(watchlist.purposes),
        "case_types": [case_type.value for case_type in watchlist.case_types],
        "signatories": sorted(signatories),
    }
    return {"uid": _uid("Watchlist", watchlist.id), "attrs": attributes, "parents": []}


def _holding(watchlist_id: str, owner: str) -> Json:
    attributes = {"watchlist": {"__entity": _uid("Watchlist", watchlist_id)}, "owner": owner}
    return {"uid": _uid("Holding", f"{watchlist_id}/{owner}"), "attrs": attributes, "parents": []}
