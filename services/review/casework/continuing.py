"""A case that goes on with another's pictures and request, because its probe was searched again."""

from __future__ import annotations

from datetime import datetime

from services.review.casework.flagged import undecided
from services.review.casework.steps import Casebook
from services.review.model import CandidateForJudgement, Case, CaseState, SearchRecord
from services.review.workflow import TURNAROUND
from services.shared.ids import new_id


def continuing_case(
    book: Casebook,
    case: Case,
    records: tuple[SearchRecord, ...],
    candidates: tuple[CandidateForJudgement, ...],
    now: datetime,
    *,
    told: tuple[str, ...] = (),
) -> Case:
    """The new case, not yet stored: searched, or flagged where a supervisor has not decided on its probe. `told`: who
    alone may see it until one of them takes it up."""
    return Case(
        request_id=new_id(),
        number=f"{now.year}-{book.store.next_number(case.force, now.year):05d}",
        force=case.force,
        state=CaseState.FLAGGED if undecided(records, case.probe_decisions) else CaseState.SEARCHED,
        version=1,
        request=case.request,
        requested_by=case.requested_by,
        requested_at=now,
        due_at=now + TURNAROUND[case.request.urgency],
        updated_at=now,
        probes=case.probes,
        triage=case.triage,
        searches=records,
        candidates=candidates,
        probe_decisions=case.probe_decisions,
        continues=case.request_id,
        told=told,
    )
