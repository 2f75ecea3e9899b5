"""What a decision says: whose references may be searched, by which policies, or why not."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.shared.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Denial:
    """One reason why not: the id of the policy that says so and words for a person."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class PermittedScope:
    """A watchlist that may be searched, and of it the references of these owners; None means of every owner.

    `agreements` are the references of the agreements that the permission rests on, `policies` the ids of the policies
    that give it. Two scopes are the same when they permit the same.
    """

    watchlist_id: str
    owners: frozenset[str] | None
    agreements: tuple[str, ...] = ()
    policies: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """Permitted only when there is a scope for every watchlist asked for and no denial.

    `policy` is the digest of the policies and `watchlists` that of the watchlists and agreements it was decided by.
    """

    scopes: tuple[PermittedScope, ...]
    denials: tuple[Denial, ...]
    policy: str = field(default="", compare=False)
    watchlists: str = field(default="", compare=False)

    @property
    def is_permitted(self) -> bool:
        return bool(self.scopes) and not self.denials

    def covers(self, earlier: Decision) -> bool:
        """Whether everything that the earlier decision permitted is permitted by this one too."""
        mine = {scope.watchlist_id: scope.owners for scope in self.scopes}
        return all(
            scope.watchlist_id in mine and _includes(mine[scope.watchlist_id], scope.owners) for scope in earlier.scopes
        )

    def require(self) -> None:
        """Raises Forbidden with every reason."""
        if not self.is_permitted:
            raise Forbidden(
                " ".join(denial.detail for denial in self.denials) or "Nothing was permitted.",
                advice="Ask for what your role, force and purpose allow, or ask your administrator for the permission.",
                context={"reasons": [denial.code for denial in self.denials], "policy": self.policy},
            )


def _includes(owners: frozenset[str] | None, others: frozenset[str] | None) -> bool:
    return owners is None or (others is not None and owners >= others)
