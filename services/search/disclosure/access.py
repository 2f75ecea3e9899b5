"""Who may disclose a search or run it again, and what the log says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2
from services.search.closing import Closing
from services.search.ports import SearchStatus, SearchStore, StoredSearch
from services.search.trail import search_object
from services.shared.errors import CallerError, Conflict, Forbidden, NotFound
from services.shared.ids import is_id, new_id
from services.shared.tokens import Principal

# Who answers for a search: those who search, and those who answer for them.
DISCLOSING_ROLES = frozenset({"operator", "supervisor"})
DISCLOSURE = "search_disclosure"
REPLAY = "search_replay"

_OPERATIONS = {DISCLOSURE: audit_pb2.DISCLOSURE, REPLAY: audit_pb2.CONSULTATION}


class DisclosureAccess:
    """Finds the stored search of a caller who may have it.

    What is not there, not of the caller's force, and on a watchlist that the caller may not see is one and the same
    answer.
    """

    def __init__(self, store: SearchStore, closing: Closing) -> None:
        self._store = store
        self._closing = closing

    def find(self, principal: Principal, search_id: str) -> StoredSearch:
        """A search that has an answer, disclosed already to whoever made it. Raises Forbidden, NotFound, Conflict."""
        if not principal.roles & DISCLOSING_ROLES:
            raise Forbidden(
                f"Only {' and '.join(sorted(DISCLOSING_ROLES))} disclose searches.", advice="Ask your administrator."
            )
        search = self._find(search_id) if is_id(search_id) else None
        if (
            search is None
            or search.principal.force != principal.force
            or not principal.watchlists.issuperset(search.watchlists)
        ):
            raise NotFound("There is no such search.", advice="Check the search_id.")
        if search.status is not SearchStatus.DONE or search.result is None or not search.is_closed:
            raise Conflict(
                f"The search has no answer that could be disclosed; its status is {search.status.value}.",
                advice="The audit log holds its entries: likeness audit export.",
                code="search_without_answer",
            )
        return search

    def _find(self, search_id: str) -> StoredSearch | None:
        search = self._store.find(search_id)
        if search is None or search.is_closed:
            return search
        self._closing.flush()
        return self._store.find(search_id)


@dataclass(frozen=True, slots=True)
class Act:
    """A disclosure or a replay under way: what its entries have in common."""

    activity: str
    activity_id: str
    principal: Principal
    search: StoredSearch


class DisclosureTrail:
    """Intent and outcome of disclosures and replays. All methods raise AuditUnavailable."""

    def __init__(self, recorder: AuditRecorder) -> None:
        self._recorder = recorder

    def intend(self, activity: str, principal: Principal, search: StoredSearch, reason: str) -> Act:
        """Before anything is read."""
        act = Act(activity, new_id(), principal, search)
        self._record(act, audit_pb2.INTENT, {"reason": reason})
        return act

    def done(self, act: Act, details: Mapping[str, str], references: Sequence[str] = ()) -> None:
        """Before it is given out."""
        self._record(act, audit_pb2.DONE, details, references)

    def failed(self, act: Act, error_code: str) -> None:
        self._record(act, audit_pb2.FAILED, {"reason": error_code})

    def refused(self, activity: str, principal: Principal, search_id: str, error: CallerError) -> None:
        """Before anything was looked at."""
        self._recorder.record(
            _OPERATIONS[activity],
            audit_pb2.REFUSED,
            activity,
            new_id(),
            principal,
            objects=[search_object(search_id)],
            details={"reason": error.code},
        )

    def _record(
        self, act: Act, phase: audit_pb2.Phase.ValueType, details: Mapping[str, str], references: Sequence[str] = ()
    ) -> None:
        search = act.search
        self._recorder.record(
            _OPERATIONS[act.activity],
            phase,
            act.activity,
            act.activity_id,
            act.principal,
            purpose=search.purpose,
            case_reference=search.case_reference,
            objects=[search_object(search.search_id), *(f"reference:{name}" for name in references)],
            recipients=[f"person:{act.principal.person_id}"] if phase == audit_pb2.DONE else [],
            details=details,
        )
