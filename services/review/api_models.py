"""Bodies of review's REST API."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import BaseModel, ConfigDict, Field

from services.review.casework.films import MAX_PROBES
from services.review.casework.forms import MAX_PROSE_CHARS
from services.review.casework.looking import ResultView
from services.review.model import (
    Case,
    CaseState,
    FacialFeature,
    Finding,
    Observation,
    OutcomeKind,
    StepKind,
    Suitability,
)

OUTCOME_KINDS = tuple(kind.value for kind in OutcomeKind)
_Reason = Field(max_length=MAX_PROSE_CHARS)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Versioned(_Strict):
    """`version` is what you last saw; when it has changed meanwhile, the answer is 409 with what it is now."""

    version: int


class Reasoned(Versioned):
    reason: str = _Reason


class DisclosureBody(BaseModel):
    """To whom the full pack may go, and why."""

    model_config = ConfigDict(extra="forbid")

    recipient: str = Field(max_length=200, examples=["Northshire Crown Court"])
    reason: str = Field(max_length=200)


class OutcomeReport(Versioned):
    kind: OutcomeKind
    remarks: str = Field(default="", max_length=MAX_PROSE_CHARS)


class AssessmentBody(Versioned):
    probe_id: str
    face: int = Field(ge=0)
    grade: Suitability
    remarks: str = Field(default="", max_length=MAX_PROSE_CHARS)


class FacesBody(Versioned):
    probe_id: str
    faces: list[int] = Field(min_length=1, max_length=MAX_PROBES)


class StepBody(_Strict):
    kind: StepKind
    amounts: dict[str, float] = {}


class EnhancementBody(Reasoned):
    probe_id: str
    steps: list[StepBody]


class SearchBody(Reasoned):
    probe_id: str
    enhancement_id: str | None = None
    max_candidates: int = Field(default=20, ge=2, le=50)
    # Other forces' platforms to ask with the original, and by whose authority it is disclosed to them.
    partners: list[str] = Field(default=[], max_length=16)
    authority: str = ""


class PicksBody(Versioned):
    tracks: list[int] = Field(min_length=1, max_length=MAX_PROBES)


class FeatureBody(_Strict):
    feature: FacialFeature
    observation: Observation
    remark: str = Field(default="", max_length=MAX_PROSE_CHARS)


class JudgementBody(Versioned):
    """`version` is the examination's own, as the comparison gives it."""

    finding: Finding
    features: list[FeatureBody] = []
    remarks: str = Field(default="", max_length=MAX_PROSE_CHARS)


class ArbitrationBody(Versioned):
    findings: dict[str, Finding]
    reasons: dict[str, str]


class ReleaseBody(Versioned):
    retain_until: date


class UnsolvedBody(Reasoned):
    authority: str = _Reason
    expires_on: date


class TrainingBody(_Strict):
    course: str = _Reason
    certificate: str = _Reason
    trained_on: date
    expires_on: date


class RequestStatus(_Strict):
    """Where a request stands, in the words of the workflow; `reason` why it was returned or found unsuitable."""

    request_id: str
    number: str
    state: CaseState
    version: int
    case_reference: str
    requested_at: datetime
    due_at: datetime
    reason: str | None


class ReleasedName(_Strict):
    """A potential name: a subject by the owner force's own identifier. Not an identification."""

    subject_id: str
    owner: str
    watchlist: str
    agreement: str


class AuditPositionAnswer(_Strict):
    sequence: int
    leaf_hash: str
    entry_id: str
    recorded_at: str
    code: str


class ResultAnswer(_Strict):
    request_id: str
    number: str
    state: CaseState
    case_reference: str
    potential_names: list[ReleasedName]
    statements: list[str]
    released_by: str
    released_at: datetime
    retain_until: date
    audit: AuditPositionAnswer


def request_status(case: Case) -> RequestStatus:
    is_negative = case.state in {CaseState.RETURNED, CaseState.UNSUITABLE}
    return RequestStatus(
        request_id=case.request_id,
        number=case.number,
        state=case.state,
        version=case.version,
        case_reference=case.request.case_reference,
        requested_at=case.requested_at,
        due_at=case.due_at,
        reason=_why(case) if is_negative else None,
    )


def _why(case: Case) -> str:
    if case.state is CaseState.RETURNED and case.triage is not None:
        return case.triage.reason
    refused = [one.reason for one in case.probe_decisions if not one.is_allowed]
    if refused:
        return " ".join(refused)
    remarks = [probe.assessment.remarks for probe in case.probes if probe.assessment is not None]
    return " ".join(remarks) or (case.triage.reason if case.triage is not None else "")


def result_answer(view: ResultView) -> ResultAnswer:
    release = view.release
    position = release.audit
    return ResultAnswer(
        request_id=view.request_id,
        number=view.number,
        state=view.state,
        case_reference=view.case_reference,
        potential_names=[
            ReleasedName(
                subject_id=name.subject_id, owner=name.owner, watchlist=name.watchlist, agreement=name.agreement
            )
            for name in release.names
        ],
        statements=list(release.statements),
        released_by=release.released_by,
        released_at=release.released_at,
        retain_until=release.retain_until,
        audit=AuditPositionAnswer(
            sequence=position.sequence,
            leaf_hash=position.leaf_hash,
            entry_id=position.entry_id,
            recorded_at=position.recorded_at,
            code=position.code,
        ),
    )
