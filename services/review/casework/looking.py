"""What people see of cases: their queue, a case without what they must not know yet, a released result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from services.review.casework.caller import Caller
from services.review.casework.steps import Casebook, is_requester, not_found, require_role, told_to
from services.review.casework.trail import About
from services.review.model import Case, CaseState, Examination, Finding, Release, Urgency
from services.review.partners import before_judgement
from services.review.ports import CaseFilter
from services.review.unsolved.ports import KeptLook
from services.review.workflow import OPERATOR, REQUESTER, ROLE_OF, SUPERVISOR, Action, allowed, is_blind
from services.shared.people import is_same_person

SEE_QUEUE, SEE_CASE, SEE_RESULT = "see_queue", "see_case", "see_result"
MOST_FINISHED = 500
_ALL = 100_000
_OVER = frozenset({CaseState.RETURNED, CaseState.UNSUITABLE, CaseState.CLOSED, CaseState.WITHDRAWN})
_JUDGING = frozenset(
    {CaseState.SEARCHED, CaseState.IN_FIRST_REVIEW, CaseState.AWAITING_SECOND_REVIEW, CaseState.IN_SECOND_REVIEW}
)
_RELEASED = frozenset({CaseState.RELEASED, CaseState.UNSOLVED, CaseState.CLOSED})
_BEGIN = frozenset({Action.BEGIN_FIRST, Action.BEGIN_SECOND})
_ALLOWING = frozenset({Action.ALLOW_PROBE, Action.REFUSE_PROBE})
_SIGN = frozenset({Action.SIGN_FIRST, Action.SIGN_SECOND_AGREEING, Action.SIGN_SECOND_DISAGREEING})


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A case in a queue. `possible` is what this caller may do with it now; empty where it waits for somebody else."""

    request_id: str
    number: str
    state: CaseState
    urgency: Urgency
    case_reference: str
    offence: str
    purpose: str
    case_type: str
    requested_by: str
    requested_at: datetime
    due_at: datetime
    is_overdue: bool
    version: int
    possible: tuple[Action, ...]
    # Its pictures are to be reviewed: erased, or kept with an authority.
    is_retention_due: bool = False


@dataclass(frozen=True, slots=True)
class HistoryItem:
    at: datetime
    what: str
    who: str


@dataclass(frozen=True, slots=True)
class CaseView:
    """A case as this caller may see it. `case` holds nothing that the caller must not know yet."""

    case: Case
    possible: tuple[Action, ...]
    history: tuple[HistoryItem, ...]
    seen_at: datetime
    # How far a kept probe has been searched again by itself, and never whether anybody was found.
    kept: KeptLook | None = None


@dataclass(frozen=True, slots=True)
class ResultView:
    """A released result as the requesting force gets it: names, statements, nothing of the list."""

    request_id: str
    number: str
    state: CaseState
    case_reference: str
    release: Release
    case: Case


class Looking:
    """Reading. Every look at a case is recorded before it is shown."""

    def __init__(self, book: Casebook, kept_look: Callable[[str], KeptLook | None] | None = None) -> None:
        self._book = book
        self._kept_look = kept_look

    def queue(self, caller: Caller, *, with_finished: bool = False) -> Sequence[CaseRow]:
        """The force's cases, most pressing first: for operators and supervisors all that their watchlists permit, for
        requesters their own. Every one that is not released yet; of the others the newest MOST_FINISHED."""
        require_role(caller, OPERATOR, SUPERVISOR, REQUESTER)
        self._book.trail.consulted(caller.principal, SEE_QUEUE, About((f"queue:{caller.force}",)))
        is_worker = not caller.principal.roles.isdisjoint({OPERATOR, SUPERVISOR})
        own = None if is_worker else caller.person_id
        now = self._book.clock.now()
        return [
            self._row(caller, case, now)
            for case in self._listed(caller.force, own, with_finished=with_finished)
            if told_to(case, caller, now) and (not is_worker or _is_permitted(caller, case))
        ]

    def _listed(self, force: str, own: str | None, *, with_finished: bool) -> Sequence[Case]:
        """A year's finished cases must not keep a new one out of the list."""
        done = {CaseState.RELEASED, *(_OVER if with_finished else ())}
        open_ones = frozenset(CaseState) - _OVER - {CaseState.RELEASED}
        store = self._book.store
        waiting = store.list(CaseFilter(force, open_ones, own, limit=_ALL))
        finished = store.list(CaseFilter(force, frozenset(done), own, limit=MOST_FINISHED, is_newest=True))
        return sorted((*waiting, *finished), key=lambda case: (case.due_at, case.number))

    def case(self, caller: Caller, request_id: str) -> CaseView:
        """A case for those who work on it, or the little of it that its requester may see. Raises NotFound."""
        book = self._book
        with book.refusals(caller, SEE_CASE, request_id):
            require_role(caller, OPERATOR, SUPERVISOR, REQUESTER)
            case = book.case(caller, request_id)
            is_worker = not caller.principal.roles.isdisjoint({OPERATOR, SUPERVISOR})
            if is_worker and not _is_permitted(caller, case):
                raise not_found()
        book.trail.consulted(caller.principal, SEE_CASE, About.case(case))
        examinations = book.store.examinations(request_id)
        shown = redacted(case, examinations) if is_worker else for_requester(case)
        look = self._kept_look(request_id) if self._kept_look and case.unsolved is not None else None
        return CaseView(
            shown, self.possible(caller, case, examinations), history(shown, examinations), book.clock.now(), look
        )

    def result(self, caller: Caller, request_id: str) -> ResultView:
        """The released result, to the requesting force alone; to everybody else, and before, there is none. Nor is
        there to who works here and may not see one of its watchlists: the names in it stand in those."""
        book = self._book
        with book.refusals(caller, SEE_RESULT, request_id):
            require_role(caller, OPERATOR, SUPERVISOR, REQUESTER)
            case = book.case(caller, request_id)
            is_worker = not caller.principal.roles.isdisjoint({OPERATOR, SUPERVISOR})
            if case.release is None or case.state not in _RELEASED or (is_worker and not _is_permitted(caller, case)):
                raise not_found()
        recipients = [f"person:{caller.person_id}", f"force:{caller.force}"]
        book.trail.disclosed(caller.principal, SEE_RESULT, About.case(case), recipients)
        return ResultView(
            case.request_id, case.number, case.state, case.request.case_reference, case.release, for_requester(case)
        )

    def possible(self, caller: Caller, case: Case, examinations: Sequence[Examination]) -> tuple[Action, ...]:
        """What this caller may do with a case now, as far as it follows from roles and people."""
        rules: Sequence[Callable[[Action], bool]] = (
            lambda action: ROLE_OF[action] in caller.principal.roles,
            lambda action: not (action in _BEGIN and _examined(caller, examinations)),
            lambda action: not (action in _BEGIN | _SIGN and not is_blind(caller.principal)),
            lambda action: not (action in _SIGN and not _is_examining(caller, examinations)),
            lambda action: not (_is_judging(action) and is_requester(case, caller.person_id)),
            lambda action: not (action is Action.ARBITRATE and _examined(caller, examinations)),
            lambda action: action is not Action.SEARCH_FLAGGED,  # what a search turns out to be, not a choice
            lambda action: not (action in _ALLOWING and _searched(caller, case)),
            # Which of the two it is does not show: see below.
            lambda action: action is not (Action.CLOSE_KNOWN_ANSWER if case.known_answer is None else Action.RELEASE),
        )
        found = tuple(action for action in allowed(case.state) if all(rule(action) for rule in rules))
        # To whoever works on it, a planted probe is released like any other.
        return tuple(Action.RELEASE if action is Action.CLOSE_KNOWN_ANSWER else action for action in found)

    def _row(self, caller: Caller, case: Case, now: datetime) -> CaseRow:
        request = case.request
        examinations = self._book.store.examinations(case.request_id) if case.state in _JUDGING else ()
        return CaseRow(
            request_id=case.request_id,
            number=case.number,
            state=case.state,
            urgency=request.urgency,
            case_reference=request.case_reference,
            offence=request.offence,
            purpose=request.purpose,
            case_type=request.case_type.value,
            requested_by=case.requested_by,
            requested_at=case.requested_at,
            due_at=case.due_at,
            is_overdue=now > case.due_at and case.state not in {*_OVER, *_RELEASED},
            version=case.version,
            possible=self.possible(caller, case, examinations),
            is_retention_due=case.erasure is None
            and (ends := case.retention_ends()) is not None
            and ends <= now.date(),
        )


def redacted(case: Case, examinations: Sequence[Examination]) -> Case:
    """The case without what would tell one examiner of the other, or of rank and score, or that it is planted.

    Candidates and the ids of searches are shown once two judgements are signed: with a search's id an operator could
    ask search itself for its list. Who is right of a planted probe is shown once it is closed.
    """
    known = case.known_answer if case.state is CaseState.CLOSED else None
    if len([one for one in examinations if one.signature is not None]) >= 2:
        return replace(case, known_answer=known)
    hidden = tuple(
        replace(record, search_id="", answer_sha256="", answer=_without_ids(record.answer)) for record in case.searches
    )
    asked = before_judgement(case.enquiries, is_planted=case.known_answer is not None)
    return replace(
        case, searches=hidden, enquiries=asked, candidates=(), decided={}, arbitration=None, known_answer=known
    )


def for_requester(case: Case) -> Case:
    """What the requesting force may see: its own request, where it stands, what was released."""
    named = {name.candidate_id for name in case.release.names} if case.release is not None else set()
    return replace(
        case,
        searches=(),
        # Whom else the probe was disclosed to goes with the result; whom they listed does not.
        enquiries=() if case.release is None else tuple(replace(one, candidates=()) for one in case.enquiries),
        candidates=tuple(one for one in case.candidates if one.candidate_id in named),
        decided=dict.fromkeys(sorted(named), Finding.POSSIBLE_MATCH),
        arbitration=None,
        known_answer=None,
        # Why a probe was refused is said; that another one was allowed is the unit's own.
        probe_decisions=tuple(one for one in case.probe_decisions if not one.is_allowed),
        disclosures=(),
    )


def history(case: Case, examinations: Sequence[Examination]) -> tuple[HistoryItem, ...]:
    """What was done with a case, oldest first, as far as `case` shows it."""
    items = [HistoryItem(case.requested_at, "requested", case.requested_by)]
    if case.triage is not None:
        what = "accepted" if case.triage.is_accepted else "returned"
        items.append(HistoryItem(case.triage.decided_at, what, case.triage.decided_by))
    for probe in case.probes:
        if probe.assessment is not None:
            items.append(HistoryItem(probe.assessment.assessed_at, "probe assessed", probe.assessment.assessed_by))
        items += [HistoryItem(made.made_at, "working copy made", made.made_by) for made in probe.enhancements]
    items += [HistoryItem(one.searched_at, f"searched ({one.variant.value})", one.searched_by) for one in case.searches]
    items += [
        HistoryItem(one.decided_at, f"flagged probe {'allowed' if one.is_allowed else 'refused'}", one.decided_by)
        for one in case.probe_decisions
    ]
    items += _reviews(examinations)
    if case.arbitration is not None:
        signature = case.arbitration.signature
        items.append(HistoryItem(signature.signed_at, "disagreement decided", signature.signed_by))
    if case.release is not None:
        items.append(HistoryItem(case.release.released_at, "released", case.release.released_by))
    for one in case.disclosures:
        items.append(HistoryItem(one.approved_at, f"full pack approved for {one.recipient}", one.approved_by))
        if one.used_at is not None:
            items.append(HistoryItem(one.used_at, f"full pack handed out for {one.recipient}", one.used_by or ""))
    if case.outcome is not None:
        items.append(HistoryItem(case.outcome.reported_at, "outcome reported", case.outcome.reported_by))
    if case.unsolved is not None:
        items.append(HistoryItem(case.unsolved.kept_at, "kept in the unsolved file", case.unsolved.kept_by))
    if case.erasure is not None:
        items.append(HistoryItem(case.erasure.erased_at, "pictures erased", case.erasure.erased_by))
    return tuple(sorted(items, key=lambda item: item.at))


def _reviews(examinations: Sequence[Examination]) -> list[HistoryItem]:
    items = []
    for one in examinations:
        name = "first review" if one.ordinal == 1 else "second review"
        items.append(HistoryItem(one.started_at, f"{name} begun", one.examiner))
        if one.signature is not None:
            items.append(HistoryItem(one.signature.signed_at, f"{name} signed", one.signature.signed_by))
    return items


def _without_ids(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "search_id"}


def _is_permitted(caller: Caller, case: Case) -> bool:
    return caller.principal.watchlists.issuperset(case.request.watchlists)


def _examined(caller: Caller, examinations: Sequence[Examination]) -> bool:
    return any(is_same_person(one.examiner, caller.person_id) for one in examinations)


def _is_examining(caller: Caller, examinations: Sequence[Examination]) -> bool:
    return any(one.examiner == caller.person_id and one.signature is None for one in examinations)


def _searched(caller: Caller, case: Case) -> bool:
    return any(is_same_person(record.searched_by, caller.person_id) for record in case.searches)


def _is_judging(action: Action) -> bool:
    return action in {*_BEGIN, *_SIGN, *_ALLOWING, Action.ARBITRATE, Action.RELEASE, Action.CLOSE_KNOWN_ANSWER}
