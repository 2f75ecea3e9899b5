"""A disclosure leaves only when a second person has approved it: to whom, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from services.search.disclosure.access import APPROVAL, DisclosureAccess, DisclosureTrail
from services.shared.clock import Clock, rfc3339
from services.shared.errors import CallerError, Conflict, Forbidden, LikenessError
from services.shared.ids import is_id, new_id
from services.shared.people import is_same_person
from services.shared.tokens import Principal

APPROVERS = frozenset({"supervisor"})
LIFETIME = timedelta(hours=24)
_ADVICE = "A supervisor other than you approves: POST /v1/searches/{search_id}/disclosure-approvals."


@dataclass(frozen=True, slots=True)
class Approval:
    """One disclosure of one search to one recipient, as a supervisor approved it. It serves once."""

    approval_id: str
    search_id: str
    recipient: str
    reason: str
    approved_by: str
    approved_at: datetime
    expires_at: datetime

    def told(self) -> Mapping[str, str]:
        """As the log and the bundle have it."""
        return {
            "approval": self.approval_id,
            "recipient": self.recipient,
            "reason": self.reason,
            "approved_by": self.approved_by,
            "approved_at": rfc3339(self.approved_at),
        }


class ApprovalStore(Protocol):
    """Where approvals are kept. All methods raise DependencyUnavailable."""

    def add(self, approval: Approval) -> None: ...

    def find(self, approval_id: str) -> Approval | None:
        """One that has not been used."""
        ...

    def use(self, approval_id: str, at: datetime) -> bool:
        """False where somebody else was quicker."""
        ...


class ApproveDisclosure:
    """A supervisor's approval. Raises Forbidden, NotFound, Conflict, AuditUnavailable, DependencyUnavailable."""

    def __init__(self, access: DisclosureAccess, store: ApprovalStore, trail: DisclosureTrail, clock: Clock) -> None:
        self._access = access
        self._store = store
        self._trail = trail
        self._clock = clock

    def __call__(self, principal: Principal, search_id: str, recipient: str, reason: str) -> Approval:
        """An approval to disclose this search to this recipient, recorded; it can be used once, for LIFETIME."""
        try:
            search = self._access.find(principal, search_id, APPROVERS)
        except CallerError as error:
            self._trail.refused(APPROVAL, principal, search_id, error)
            raise
        now = self._clock.now()
        approval = Approval(new_id(), search.search_id, recipient, reason, principal.person_id, now, now + LIFETIME)
        act = self._trail.intend(APPROVAL, principal, search, approval.told())
        try:
            self._store.add(approval)
        except LikenessError as error:
            self._trail.failed(act, error.code)
            raise
        self._trail.done(act, approval.told())
        return approval


def require_approval(
    store: ApprovalStore, principal: Principal, search_id: str, approval_id: str, now: datetime
) -> Approval:
    """An unused approval of this search by somebody else. Conflict where there is none, Forbidden for one's own."""
    found = store.find(approval_id) if is_id(approval_id) else None
    if found is None or found.search_id != search_id or now >= found.expires_at:
        raise Conflict(
            "This disclosure needs an approval that can still be used.", advice=_ADVICE, code="approval_needed"
        )
    if is_same_person(found.approved_by, principal.person_id):
        raise Forbidden("Nobody discloses on their own approval.", advice=_ADVICE, code="own_approval")
    return found
