"""What is about a person as a whole shows every watchlist that they stand on, and also that they stand on none."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from services.shared.errors import Forbidden
from services.shared.tokens import Principal

# Those that the platform has now.
Watchlists = Callable[[], Iterable[str]]


def require_every_watchlist(principal: Principal, watchlists: Watchlists) -> None:
    """Raises Forbidden, before anything of anybody is looked at: a refusal that came only for a person on a list that
    the token does not name would say that this person stands on it."""
    if not principal.watchlists.issuperset(watchlists()):
        raise Forbidden(
            "This is about people wherever they stand, and your token does not name every watchlist.",
            advice="Let a custodian of your force do it whose token names every watchlist.",
        )
