"""What every step on a case has in common: may this person do this to this case now, recorded before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from services.review.casework.caller import Caller
from services.review.casework.trail import About, Act, CaseTrail
from services.review.model import Case, Examination, KnownAnswer
from services.review.ports import ReviewStore
from services.review.workflow import OPERATOR, REQUESTER, ROLE_OF, Action, following
from services.rpc.v1 import audit_pb2
from services.shared.clock import Clock
from services.shared.errors import CallerError, Conflict, Forbidden, NotFound
from services.shared.ids import is_id
from services.shared.people import is_same_person

# Beside the role: nobody judges, decides or releases their own request.
_NOT_BY_REQUESTER = frozenset(
    {
        Action.BEGIN_FIRST,
        Action.SIGN_FIRST,
        Action.BEGIN_SECOND,
        Action.SIGN_SECOND_AGREEING,
        Action.SIGN_SECOND_DISAGREEING,
        Action.ARBITRATE,
        Action.ALLOW_PROBE,
        Action.REFUSE_PROBE,
        Action.RELEASE,
    }
)


class Casebook:
    """Finds cases for those who may see them. What is not there and not yours is one and the same answer."""

    def __init__(self, store: ReviewStore, trail: CaseTrail, clock: Clock) -> None:
        self.store = store
        self.trail = trail
        self.clock = clock

    def case(self, caller: Caller, request_id: str) -> Case:
        """The case for whoever works on it or asked for it. Raises NotFound."""
        case = self.store.find(request_id) if is_id(request_id) else None
        if case is None or case.force != caller.force or not told_to(case, caller, self.clock.now()):
            raise not_found()
        return case

    def working(self, caller: Caller, request_id: str, *roles: str) -> Case:
        """The case for an operator or a supervisor who may see all of its watchlists. Raises NotFound, Forbidden."""
        require_role(caller, *(roles or (OPERATOR,)))
        case = self.case(caller, request_id)
        if not caller.principal.watchlists.issuperset(case.request.watchlists):
            raise not_found()
        return case

    def for_action(self, caller: Caller, request_id: str, action: Action, version: int) -> Case:
        """The case, when this person may do this to it now and it is still as the person saw it.

        Raises Forbidden (role, own request), NotFound, Conflict (`illegal_transition`, `changed_meanwhile`).
        """
        role = ROLE_OF[action]
        require_role(caller, role)
        case = self.case(caller, request_id) if role == REQUESTER else self.working(caller, request_id, role)
        if action in _NOT_BY_REQUESTER and is_requester(case, caller.person_id):
            raise own_request()
        if case.version != version:
            raise changed_meanwhile(case)
        following(case.state, action)
        return case

    @contextmanager
    def refusals(self, caller: Caller, activity: str, request_id: str) -> Iterator[None]:
        """Record a refusal that comes before anything is begun."""
        try:
            yield
        except CallerError as error:
            self.trail.refused(caller.principal, activity, About.unknown(request_id), error)
            raise

    @contextmanager
    def step(
        self,
        caller: Caller,
        request_id: str,
        action: Action,
        version: int,
        *,
        operation: audit_pb2.Operation.ValueType = audit_pb2.ALTERATION,
        details: Mapping[str, str] | None = None,
        objects: tuple[str, ...] = (),
    ) -> Iterator[Step]:
        """One step on a case, begun and ended in the audit log. Use `Step.move` once, as the last thing, or
        `Step.move_on` where more has to follow."""
        with self.refusals(caller, action.value, request_id):
            case = self.for_action(caller, request_id, action, version)
        about = About.case(case, *objects)
        with self.trail.act(caller.principal, action.value, about, operation, details) as act:
            yield Step(self, case, action, act)


@dataclass(slots=True)
class Step:
    """A step under way on a case that may be taken."""

    book: Casebook
    case: Case
    action: Action
    act: Act

    def move(self, *examinations: Examination, action: Action | None = None, **changes: Any) -> Case:
        """Store the case in its next state with these changes: the step is done. Raises Conflict `changed_meanwhile`,
        AuditUnavailable where it took so long that it was given up."""
        moved = self._moved(action, changes)
        with self.act.settling() as settles:
            return self.book.store.save(moved, *examinations, settles=settles)

    def move_on(self, **changes: Any) -> Case:
        """Like `move`, but the step is done only with what comes after it."""
        return self.book.store.save(self._moved(None, changes))

    def _moved(self, action: Action | None, changes: Mapping[str, Any]) -> Case:
        state = following(self.case.state, action or self.action)
        self.act.details.setdefault("state", state.value)
        return replace(self.case, state=state, updated_at=self.book.clock.now(), **changes)


def require_role(caller: Caller, *roles: str) -> None:
    """Raises Forbidden unless the caller has one of the roles."""
    if caller.principal.roles.isdisjoint(roles):
        raise Forbidden(
            f"This needs the role {' or '.join(roles)}.",
            advice="Ask your administrator.",
            context={"reasons": ["role_missing"]},
        )


def told_to(case: Case, caller: Caller, now: datetime) -> bool:
    """Whether the caller may know of a case of their force (`Case.is_told_to`)."""
    return case.is_told_to(caller.person_id, now, is_supervisor=caller.is_supervisor)


def is_requester(case: Case, person_id: str) -> bool:
    """A known-answer probe has two: the one it is shown with, and the one who planted it and knows the answer."""
    known = case.known_answer
    planted_by = known.planted_by if isinstance(known, KnownAnswer) else case.requested_by
    return is_same_person(person_id, case.requested_by) or is_same_person(person_id, planted_by)


def own_request() -> Forbidden:
    return Forbidden(
        "Nobody judges, decides or releases their own request.",
        advice="Another trained operator has to do it.",
        context={"reasons": ["own_request"]},
    )


def not_found() -> NotFound:
    return NotFound("There is no such request.", advice="Check the request_id.")


def changed_meanwhile(case: Case) -> Conflict:
    return Conflict(
        f"The case has changed meanwhile: it is {case.state.value.replace('_', ' ')} now. Nothing of yours was stored.",
        advice="Look at it again; what you entered is still yours to send again.",
        code="changed_meanwhile",
        context={"state": case.state.value, "version": case.version},
    )
