"""The workflow as a table: what may follow what, and who may do it. What is not in the table does not exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from services.review.model import CaseState, Finding, Urgency
from services.shared.errors import Conflict
from services.shared.tokens import Principal

OPERATOR, SUPERVISOR, REQUESTER = "operator", "supervisor", "requester"
ADMINISTRATOR, AUDITOR, INSPECTOR = "administrator", "auditor", "inspector"

# Two judgements: the second reviewer is blind to the first, and nobody reviews their own.
JUDGEMENTS_REQUIRED = 2

# From the receipt of a request to its release, by urgency: what the unit promises its officers.
TURNAROUND: Mapping[Urgency, timedelta] = {
    Urgency.IMMEDIATE: timedelta(hours=1),
    Urgency.URGENT: timedelta(hours=24),
    Urgency.ROUTINE: timedelta(days=5),
}


class Action(StrEnum):
    """Everything that moves a case. None of them is a machine's."""

    ACCEPT = "accept"
    RETURN = "return"
    WITHDRAW = "withdraw"
    READ_FILM = "read_film"
    PICK_FACES = "pick_faces"
    ASSESS = "assess"
    CALL_UNSUITABLE = "call_unsuitable"
    ENHANCE = "enhance"
    SEARCH = "search"
    SEARCH_FLAGGED = "search_flagged"
    ALLOW_PROBE = "allow_probe"
    REFUSE_PROBE = "refuse_probe"
    BEGIN_FIRST = "begin_first"
    SIGN_FIRST = "sign_first"
    BEGIN_SECOND = "begin_second"
    SIGN_SECOND_AGREEING = "sign_second_agreeing"
    SIGN_SECOND_DISAGREEING = "sign_second_disagreeing"
    ARBITRATE = "arbitrate"
    RELEASE = "release"
    CLOSE_KNOWN_ANSWER = "close_known_answer"
    RECORD_OUTCOME = "record_outcome"
    KEEP_UNSOLVED = "keep_unsolved"
    CLOSE = "close"
    SEARCH_AGAIN = "search_again"
    ERASE = "erase"


_S = CaseState
TRANSITIONS: Mapping[tuple[CaseState, Action], CaseState] = {
    (_S.RECEIVED, Action.ACCEPT): _S.ACCEPTED,
    (_S.RECEIVED, Action.RETURN): _S.RETURNED,
    (_S.RECEIVED, Action.WITHDRAW): _S.WITHDRAWN,
    (_S.ACCEPTED, Action.WITHDRAW): _S.WITHDRAWN,
    (_S.ACCEPTED, Action.ASSESS): _S.ASSESSED,
    (_S.ACCEPTED, Action.CALL_UNSUITABLE): _S.UNSUITABLE,
    # People of a film become probes as long as nobody has begun to judge.
    (_S.ACCEPTED, Action.READ_FILM): _S.ACCEPTED,
    (_S.ASSESSED, Action.READ_FILM): _S.ASSESSED,
    (_S.SEARCHED, Action.READ_FILM): _S.SEARCHED,
    (_S.ACCEPTED, Action.PICK_FACES): _S.ACCEPTED,
    (_S.ASSESSED, Action.PICK_FACES): _S.ASSESSED,
    (_S.SEARCHED, Action.PICK_FACES): _S.SEARCHED,
    (_S.ASSESSED, Action.ASSESS): _S.ASSESSED,
    (_S.ASSESSED, Action.CALL_UNSUITABLE): _S.UNSUITABLE,
    (_S.ASSESSED, Action.ENHANCE): _S.ASSESSED,
    (_S.ASSESSED, Action.WITHDRAW): _S.WITHDRAWN,
    (_S.ASSESSED, Action.SEARCH): _S.SEARCHED,
    # A flagged probe: nobody judges its candidates before a supervisor has allowed it, and there is no way round.
    (_S.ASSESSED, Action.SEARCH_FLAGGED): _S.FLAGGED,
    (_S.SEARCHED, Action.SEARCH_FLAGGED): _S.FLAGGED,
    (_S.FLAGGED, Action.ALLOW_PROBE): _S.SEARCHED,
    (_S.FLAGGED, Action.REFUSE_PROBE): _S.UNSUITABLE,
    # Another probe of the same request, or another recipe, as long as nobody has begun to judge.
    (_S.SEARCHED, Action.ASSESS): _S.SEARCHED,
    (_S.SEARCHED, Action.ENHANCE): _S.SEARCHED,
    (_S.SEARCHED, Action.SEARCH): _S.SEARCHED,
    (_S.SEARCHED, Action.BEGIN_FIRST): _S.IN_FIRST_REVIEW,
    (_S.IN_FIRST_REVIEW, Action.SIGN_FIRST): _S.AWAITING_SECOND_REVIEW,
    (_S.AWAITING_SECOND_REVIEW, Action.BEGIN_SECOND): _S.IN_SECOND_REVIEW,
    (_S.IN_SECOND_REVIEW, Action.SIGN_SECOND_AGREEING): _S.DECIDED,
    (_S.IN_SECOND_REVIEW, Action.SIGN_SECOND_DISAGREEING): _S.DISPUTED,
    (_S.DISPUTED, Action.ARBITRATE): _S.DECIDED,
    (_S.DECIDED, Action.RELEASE): _S.RELEASED,
    (_S.DECIDED, Action.CLOSE_KNOWN_ANSWER): _S.CLOSED,
    (_S.RELEASED, Action.RECORD_OUTCOME): _S.CLOSED,
    (_S.RELEASED, Action.KEEP_UNSOLVED): _S.UNSOLVED,
    (_S.UNSOLVED, Action.RECORD_OUTCOME): _S.CLOSED,
    (_S.UNSOLVED, Action.CLOSE): _S.CLOSED,
    (_S.CLOSED, Action.RECORD_OUTCOME): _S.CLOSED,
    (_S.UNSOLVED, Action.SEARCH_AGAIN): _S.UNSOLVED,
    # Once their time is over, pictures are erased; what was said and judged stays.
    (_S.RETURNED, Action.ERASE): _S.RETURNED,
    (_S.UNSUITABLE, Action.ERASE): _S.UNSUITABLE,
    (_S.WITHDRAWN, Action.ERASE): _S.WITHDRAWN,
    (_S.RELEASED, Action.ERASE): _S.CLOSED,
    (_S.UNSOLVED, Action.ERASE): _S.CLOSED,
    (_S.CLOSED, Action.ERASE): _S.CLOSED,
}

# Which role does what; that the person is not the requester, is trained, is another one, is checked where it is done.
ROLE_OF: Mapping[Action, str] = {
    action: {
        Action.WITHDRAW: REQUESTER,
        Action.RECORD_OUTCOME: REQUESTER,
        Action.ARBITRATE: SUPERVISOR,
        Action.ALLOW_PROBE: SUPERVISOR,
        Action.REFUSE_PROBE: SUPERVISOR,
    }.get(action, OPERATOR)
    for action in Action
}


def is_blind(principal: Principal) -> bool:
    """Whether somebody cannot know what another examiner found. Entries of the log say it the moment it is recorded,
    and which probe is planted; so do the figures that inspectors may publish, which leave that one out at once."""
    return principal.roles.isdisjoint({AUDITOR, INSPECTOR})


def allowed(state: CaseState) -> tuple[Action, ...]:
    """What may be done in a state, by somebody."""
    return tuple(action for (source, action) in TRANSITIONS if source is state)


def following(state: CaseState, action: Action) -> CaseState:
    """The state after an action. Raises Conflict (`illegal_transition`) with the state and what is possible in it."""
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        possible = [other.value for other in allowed(state)]
        raise Conflict(
            f"A case that is {state.value.replace('_', ' ')} cannot {action.value.replace('_', ' ')}.",
            advice="Look at the case again; it may have moved on.",
            code="illegal_transition",
            context={"state": state.value, "possible": possible},
        ) from None


def agree(first: Mapping[str, Finding], second: Mapping[str, Finding]) -> bool:
    """Whether two judgements say the same: the same candidates are possible matches.

    "No support" beside "inconclusive" is a difference of degree between two negatives: it is recorded and printed in
    the disclosure pack, and needs no supervisor.
    """
    return disputed(first, second) == ()


def disputed(first: Mapping[str, Finding], second: Mapping[str, Finding]) -> tuple[str, ...]:
    """The candidates that one of the two holds for a possible match and the other does not."""
    return tuple(
        candidate_id
        for candidate_id in first
        if (first[candidate_id] is Finding.POSSIBLE_MATCH) != (second[candidate_id] is Finding.POSSIBLE_MATCH)
    )


def settled(first: Mapping[str, Finding], second: Mapping[str, Finding]) -> dict[str, Finding]:
    """What two agreeing judgements come to: of two different negatives the more cautious, "inconclusive"."""
    return {
        candidate_id: finding if finding is second[candidate_id] else Finding.INCONCLUSIVE
        for candidate_id, finding in first.items()
    }


@dataclass(frozen=True, slots=True)
class Workflow:
    """Which findings can be recorded, and how many signed judgements by different people a release needs."""

    version: str
    findings: tuple[Finding, ...]
    judgements_required: int


WORKFLOW = Workflow(version="3", findings=tuple(Finding), judgements_required=JUDGEMENTS_REQUIRED)
