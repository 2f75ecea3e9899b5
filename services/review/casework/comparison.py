"""What an examiner sees: their own order, and of a candidate nothing but the pictures until they have judged it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from services.review.model import (
    Adjudication,
    Appearance,
    Case,
    Examination,
    ProbeImage,
    SearchVariant,
    Signature,
)
from services.review.partners import PartnerEnquiry, before_judgement, standing


@dataclass(frozen=True, slots=True)
class Biography:
    """What is hidden until the candidate is judged: who, from where, how far up in which list."""

    subject_id: str
    owner: str
    watchlist: str
    reference_id: str
    appearances: tuple[Appearance, ...]


@dataclass(frozen=True, slots=True)
class ComparedCandidate:
    """`position` counts from 1 in this examiner's own order; `wait_s` until it may be judged (None: not opened)."""

    candidate_id: str
    position: int
    opened_at: datetime | None
    wait_s: float | None
    adjudication: Adjudication | None
    revealed: Biography | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One examination as its examiner sees it. `version` is the examination's own, for judging and signing."""

    request_id: str
    number: str
    examination_id: str
    ordinal: int
    version: int
    case_version: int
    # The probes that were searched, with the face of each.
    probes: tuple[ProbeImage, ...]
    # (probe_id, enhancement_id) of every enhanced copy that was searched.
    enhanced: tuple[tuple[str, str], ...]
    candidates: tuple[ComparedCandidate, ...]
    remaining: int
    min_view_s: float
    signature: Signature | None
    # Other forces that were asked; their lists are judged there.
    enquiries: tuple[PartnerEnquiry, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenedCandidate:
    """A candidate and all references of its subject, the one that came back first."""

    candidate: ComparedCandidate
    reference_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _View:
    case: Case
    examination: Examination
    now: datetime
    min_view_s: float


def compared(case: Case, examination: Examination, now: datetime, min_view_s: float) -> Comparison:
    """The examiner's view. Nothing of another examination goes into it."""
    view = _View(case, examination, now, min_view_s)
    searched = {record.probe_id for record in case.searches}
    return Comparison(
        request_id=case.request_id,
        number=case.number,
        examination_id=examination.examination_id,
        ordinal=examination.ordinal,
        version=examination.version,
        case_version=case.version,
        probes=tuple(probe for probe in case.probes if probe.probe_id in searched),
        enhanced=tuple(
            (record.probe_id, record.enhancement_id)
            for record in case.searches
            if record.variant is SearchVariant.ENHANCED and record.enhancement_id is not None
        ),
        candidates=tuple(
            _candidate(view, candidate_id, place) for place, candidate_id in enumerate(examination.order, 1)
        ),
        remaining=len(examination.unjudged()),
        min_view_s=min_view_s,
        signature=examination.signature,
        enquiries=before_judgement(standing(case.enquiries), is_planted=case.known_answer is not None),
    )


def _candidate(view: _View, candidate_id: str, place: int) -> ComparedCandidate:
    examination = view.examination
    opened_at = examination.opened_at.get(candidate_id)
    # Once somebody has judged it, it stays revealed to them: what was seen is not unseen by an undo.
    was_judged = any(one.candidate_id == candidate_id for one in examination.adjudications)
    return ComparedCandidate(
        candidate_id=candidate_id,
        position=place,
        opened_at=opened_at,
        wait_s=None if opened_at is None else max(0.0, view.min_view_s - (view.now - opened_at).total_seconds()),
        adjudication=examination.standing().get(candidate_id),
        revealed=_biography(view.case, candidate_id) if was_judged else None,
    )


def _biography(case: Case, candidate_id: str) -> Biography | None:
    candidate = case.candidate(candidate_id)
    if candidate is None:
        return None
    # Not in which search: by its id an operator could ask search itself for the whole list, of all who are not judged.
    appearances = tuple(replace(one, search_id="") for one in candidate.appearances)
    return Biography(candidate.subject_id, candidate.owner, candidate.watchlist, candidate.reference_id, appearances)
