"""Who may disclose a search or run it again, and what the log says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenAct, OpenActs
from services.rpc.v1 import audit_pb2
from services.search.identification.closing import Closing
from services.search.identification.trail import search_object
from services.search.ports import SearchStatus, SearchStore, StoredSearch
from services.shared.errors import CallerError, Conflict, Forbidden, NotFound
from services.shared.ids import is_id, new_id
from services.shared.tokens import Principal

# Who answers for a search: those who search, and those who answer for them.
DISCLOSING_ROLES = frozenset({"operator", "supervisor"})
DISCLOSURE = "search_disclosure"
REPLAY = "search_replay"
APPROVAL = "disclosure_approval"

_OPERATIONS = {
    DISCLOSURE: audit_pb2.DISCLOSURE,
    REPLAY: audit_pb2.CONSULTATION,
    APPROVAL: audit_pb2.DISCLOSURE,
}


class DisclosureAccess:
    """Finds the stored search of a caller who may have it.

    What is not there, not of the caller's force, and on a watchlist that the caller may not see is one and the same
    answer.
    """

    def __init__(self, store: SearchStore, closing: Closing) -> None:
        self._store = store
        self._closing = closing

    def find(self, principal: Principal, search_id: str, roles: frozenset[str] = DISCLOSING_ROLES) -> StoredSearch:
        """A search that has an answer, disclosed already to whoever made it. Raises Forbidden, NotFound, Conflict."""
        if not principal.roles & roles:
            raise Forbidden(f"Only {' and '.join(sorted(roles))} may do this.", advice="Ask your administrator.")
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


def require_probe(search: StoredSearch) -> None:
    """Raises Conflict where its sealed probe was erased."""
    if search.probe_erased_at is not None:
        raise Conflict(
            f"The probe of this search was erased on {search.probe_erased_at.date()}: its case is over.",
            advice="The search, its list and its entries stand; the audit log proves them: likeness audit export.",
            code="probe_erased",
        )


class DisclosureTrail:
    """Intent and outcome of disclosures and replays. All methods raise AuditUnavailable, DependencyUnavailable."""

    def __init__(self, recorder: AuditRecorder, acts: OpenActs) -> None:
        self._recorder = recorder
        self._acts = acts

    def intend(self, activity: str, principal: Principal, search: StoredSearch, details: Mapping[str, str]) -> OpenAct:
        """Before anything is read."""
        act = OpenAct(
            activity=activity,
            operation=_OPERATIONS[activity],
            principal=principal,
            objects=[search_object(search.search_id)],
            details=details,
            purpose=search.purpose,
            case_reference=search.case_reference,
        )
        self._acts.begin(act)
        return act

    def done(self, act: OpenAct, details: Mapping[str, str], references: Sequence[str] = ()) -> None:
        """Before it is given out."""
        self._acts.end(act, audit_pb2.DONE, details, [f"reference:{name}" for name in references])

    def failed(self, act: OpenAct, error_code: str) -> None:
        self._acts.end(act, audit_pb2.FAILED, {"reason": error_code})

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
