"""Who may search what: one decision, deny by default."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from services.search.requests import SearchRequest
from services.shared.errors import Forbidden
from services.shared.tokens import Principal
from services.shared.watchlists import Agreement, Watchlist, Watchlists

SEARCHING_ROLE = "operator"


@dataclass(frozen=True, slots=True)
class Denial:
    """One reason why not: a stable code and words for a person."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class PermittedScope:
    """A watchlist that may be searched, and of it the references of these owners; None means of every owner.

    `agreements` are the references of the agreements that the permission rests on.
    """

    watchlist_id: str
    owners: frozenset[str] | None
    agreements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Permitted only when there is a scope for every watchlist asked for and no denial."""

    scopes: tuple[PermittedScope, ...]
    denials: tuple[Denial, ...]

    @property
    def is_permitted(self) -> bool:
        return bool(self.scopes) and not self.denials

    def require(self) -> None:
        """Raises Forbidden with every reason."""
        if not self.is_permitted:
            raise Forbidden(
                " ".join(denial.detail for denial in self.denials) or "Nothing was permitted.",
                advice="Ask for what your role, force and purpose allow, or ask your administrator for the permission.",
                context={"reasons": [denial.code for denial in self.denials]},
            )


def decide(principal: Principal, request: SearchRequest, watchlists: Watchlists, today: date) -> Decision:
    """Whether the caller may search all the watchlists asked for, and whose references in them.

    1. The role is `operator`; no other role searches.
    2. At least one watchlist is named, each exists and stands in the caller's token.
    3. The purpose is one that the watchlist may be searched for.
    4. Owners: `owner` permits the caller's own force, `signatories` the forces whose agreement is in force today,
       provided that the caller's force is one of them, `any` every force. A watchlist that needs an agreement never
       permits an owner without one in force.

    One denial denies the whole request: a list that was quietly left out would look like one that was searched.
    """
    denials: list[Denial] = []
    scopes: list[PermittedScope] = []
    if SEARCHING_ROLE not in principal.roles:
        denials.append(Denial("role_missing", f"Only the role {SEARCHING_ROLE} may search."))
    if not request.watchlists:
        denials.append(Denial("no_watchlist", "No watchlist is named."))
    for watchlist_id in request.watchlists:
        outcome = _decide_watchlist(principal, request.purpose, watchlists, watchlist_id, today)
        if isinstance(outcome, Denial):
            denials.append(outcome)
        else:
            scopes.append(outcome)
    return Decision(() if denials else tuple(scopes), tuple(denials))


def _decide_watchlist(
    principal: Principal, purpose: str, watchlists: Watchlists, watchlist_id: str, today: date
) -> PermittedScope | Denial:
    watchlist = watchlists.get(watchlist_id)
    if watchlist is None or watchlist_id not in principal.watchlists:
        return Denial("watchlist_not_permitted", f"You are not permitted to search {watchlist_id}.")
    if purpose not in watchlist.purposes:
        return Denial("purpose_not_permitted", f"{watchlist_id} may not be searched for the purpose {purpose}.")
    agreements = watchlists.agreements_in_force(watchlist_id, today)
    permitted = _owners(principal.force, watchlist, agreements)
    if permitted is not None and not permitted:
        return Denial(
            "no_agreement_in_force", f"Your force has no agreement in force under which it may search {watchlist_id}."
        )
    relied_on = tuple(a.reference for a in agreements if permitted is not None and a.owner in permitted)
    return PermittedScope(watchlist_id, permitted, relied_on)


def _owners(force: str, watchlist: Watchlist, agreements: tuple[Agreement, ...]) -> frozenset[str] | None:
    """The owners whose references the force may search; None for every owner, empty for none."""
    signatories = frozenset(agreement.owner for agreement in agreements)
    if watchlist.shared_with == "owner":
        own = frozenset({force})
        return own & signatories if watchlist.needs_agreement else own
    if watchlist.shared_with == "signatories":
        return signatories if force in signatories else frozenset()
    return signatories if watchlist.needs_agreement else None
