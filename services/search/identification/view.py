"""Looking at a search again."""

from __future__ import annotations

import orjson

from services.search.identification.answer import with_timings
from services.search.identification.closing import Closing
from services.search.identification.standing import StandingPermission
from services.search.identification.trail import SEARCH_VIEW, SearchTrail, search_object
from services.search.policy import SEARCHING_ROLE
from services.search.ports import SearchStatus, SearchStore, StoredSearch
from services.shared.errors import CallerError, Forbidden, NotFound
from services.shared.ids import is_id, new_id
from services.shared.tokens import Principal


class ViewSearch:
    """Gives a stored search to operators of its force who may see all of its watchlists; recorded before it is given.

    What is not there, not yours and not permitted is one and the same answer. A list with candidates of an owner who
    has withdrawn its consent since, or whose agreement has ended, is not shown again.
    """

    def __init__(self, store: SearchStore, trail: SearchTrail, closing: Closing, standing: StandingPermission) -> None:
        self._store = store
        self._trail = trail
        self._closing = closing
        self._standing = standing

    def __call__(self, principal: Principal, search_id: str) -> bytes:
        """The JSON of the answer, or of the status and why there is none.

        Raises NotFound, Forbidden (also where a permission has ended since), AuditUnavailable.
        """
        view_id = new_id()
        try:
            search = self._permitted(principal, search_id)
            if search.result is not None:
                self._standing.require(principal, search.result)
        except CallerError as error:
            self._trail.refused(principal, SEARCH_VIEW, view_id, error, {"object": search_object(search_id)})
            raise
        self._trail.viewed(principal, view_id, search)
        if search.status is SearchStatus.DONE and search.is_closed and search.result is not None:
            return with_timings(search.result, search.timings_ms)
        # An answer whose outcome is not in the log yet is not given out.
        status = SearchStatus.OPEN if search.status is SearchStatus.DONE else search.status
        return orjson.dumps({"search_id": search_id, "status": status.value, "problem": search.problem})

    def _permitted(self, principal: Principal, search_id: str) -> StoredSearch:
        if SEARCHING_ROLE not in principal.roles:
            raise Forbidden(f"Only the role {SEARCHING_ROLE} may see searches.", advice="Ask your administrator.")
        search = self._find(search_id) if is_id(search_id) else None
        if search is None or search.principal.force != principal.force:
            raise _not_found()
        if not principal.watchlists.issuperset(search.watchlists):
            raise _not_found()
        return search

    def _find(self, search_id: str) -> StoredSearch | None:
        search = self._store.find(search_id)
        if search is None or search.is_closed:
            return search
        self._closing.flush()
        return self._store.find(search_id)


def _not_found() -> NotFound:
    return NotFound("There is no such search.", advice="Check the search_id.")
