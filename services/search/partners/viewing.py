"""Looking at a consortium search again."""

from __future__ import annotations

import orjson

from services.search.identification.standing import StandingPermission
from services.search.partners.ports import Consortium, PartnerStore
from services.search.partners.trail import PartnerTrail
from services.search.policy import SEARCHING_ROLE
from services.shared.errors import CallerError, Forbidden, NotFound
from services.shared.ids import is_id
from services.shared.tokens import Principal


class ViewConsortium:
    """Gives a stored answer to operators of its force who may see all of its watchlists; recorded before it is given.

    What is not there, not yours, not permitted and not finished is one and the same answer.
    """

    def __init__(self, store: PartnerStore, trail: PartnerTrail, standing: StandingPermission) -> None:
        self._store = store
        self._trail = trail
        self._standing = standing

    def __call__(self, principal: Principal, consortium_id: str) -> bytes:
        """Raises NotFound, Forbidden, AuditUnavailable."""
        try:
            found, document = self._permitted(principal, consortium_id)
        except CallerError as error:
            self._trail.view_refused(principal, consortium_id, error)
            raise
        self._trail.viewed(principal, consortium_id, purpose=found.purpose, case_reference=found.case_reference)
        return document

    def _permitted(self, principal: Principal, consortium_id: str) -> tuple[Consortium, bytes]:
        if SEARCHING_ROLE not in principal.roles:
            raise Forbidden(f"Only the role {SEARCHING_ROLE} may see searches.", advice="Ask your administrator.")
        found = self._store.find(consortium_id) if is_id(consortium_id) else None
        if (
            found is None
            or found.document is None
            or found.principal.force != principal.force
            or not principal.watchlists.issuperset(found.watchlists)
        ):
            raise NotFound("There is no such search.", advice="Check the consortium_id.")
        # Of a partner's own owners nothing is known here; of those at home it is as with any search.
        self._standing.require_of(principal, orjson.loads(found.document)["home"])
        return found, found.document
