"""To whom the full pack of a case goes: a supervisor says so, somebody else fetches it, once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from services.review.casework.caller import Caller
from services.review.casework.steps import Casebook
from services.review.disclosures import DisclosureApproval
from services.review.model import Case
from services.shared.clock import rfc3339
from services.shared.errors import Conflict, Forbidden, InvalidRequest
from services.shared.people import is_same_person

_LONGEST = 200
_ADVICE = "A supervisor other than you approves: POST /v1/casework/{request_id}/disclosure-approvals."


def usable_approval(case: Case, caller: Caller, approval_id: str, now: datetime) -> DisclosureApproval:
    """An unused approval of this case by somebody else. Conflict where there is none, Forbidden for one's own."""
    found = next((one for one in case.disclosures if one.approval_id == approval_id), None)
    if found is None or not found.is_usable(now):
        raise Conflict(
            "The full pack needs an approval that can still be used.", advice=_ADVICE, code="approval_needed"
        )
    if is_same_person(found.approved_by, caller.person_id):
        raise Forbidden(
            "Nobody discloses on their own approval.",
            advice=_ADVICE,
            code="own_approval",
            context={"reasons": ["own_approval"]},
        )
    return found


def use(book: Casebook, case: Case, approval: DisclosureApproval, caller: Caller, now: datetime) -> None:
    """Raises Conflict `changed_meanwhile` where somebody else was quicker."""
    used = replace(approval, used_by=caller.person_id, used_at=now)
    book.store.save(replace(case, disclosures=tuple(used if one == approval else one for one in case.disclosures)))


def words(name: str, value: str) -> str:
    """One line that says something. Raises InvalidRequest."""
    line = value.strip()
    if not 3 <= len(line) <= _LONGEST or not line.isprintable():
        problem = f"One line of 3 to {_LONGEST} characters."
        raise InvalidRequest(
            f"Missing or invalid: {name}.",
            advice="Say to whom it goes, and why.",
            context={"fields": [{"field": name, "problem": problem}]},
        )
    return line


def given_to_recipient(case: Case, approval: DisclosureApproval, caller: Caller, now: datetime) -> str:
    """The watermark of a full pack."""
    return (
        f"Disclosed to {approval.recipient} alone, request {case.number}, approval {approval.approval_id} "
        f"of {approval.approved_by}, handed out by {caller.person_id} on {rfc3339(now)}. {_NOT_ON}"
    )


def given_to_person(case: Case, caller: Caller, now: datetime) -> str:
    """The watermark of a result: who fetched it, and who released it."""
    released_by = case.release.released_by if case.release is not None else "nobody"
    return (
        f"Given to {caller.person_id} of {caller.force} on {rfc3339(now)}, request {case.number}, "
        f"released by {released_by}. {_NOT_ON}"
    )


_NOT_ON = "Personal data: not to be copied, passed on or published."
