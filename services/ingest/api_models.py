"""The bodies of the enrolment API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.ingest.enrolling.enrolment import Acceptance, EnrolmentOutcome, EnrolmentState, EnrolmentView
from services.shared.capture_advice import capture_advice
from services.shared.clock import rfc3339
from services.shared.errors import LikenessError
from services.shared.problems import problem_body


class AcceptedEnrolment(BaseModel):
    """An enrolment as accepted, now or earlier."""

    enrolment_id: str
    state: EnrolmentState

    @classmethod
    def of(cls, acceptance: Acceptance) -> AcceptedEnrolment:
        return cls(enrolment_id=acceptance.enrolment_id, state=acceptance.state)


class BatchItem(BaseModel):
    """What belongs to one image of a batch; empty watchlist, owner, basis and date are taken from the batch."""

    model_config = ConfigDict(extra="forbid")

    subject_id: str
    watchlist: str = ""
    owner: str = ""
    lawful_basis: str = ""
    captured_on: str = ""
    agreement_reference: str = ""
    pose: str = ""
    custody_reference: str = ""
    capture_device: str = ""
    birth_band: str = ""


class BatchResult(BaseModel):
    """What became of one image of a batch: 202 accepted, 200 known already, otherwise a problem."""

    status: int
    enrolment_id: str | None = None
    state: EnrolmentState | None = None
    problem: dict[str, Any] | None = None

    @classmethod
    def of(cls, answer: Acceptance | LikenessError) -> BatchResult:
        if isinstance(answer, LikenessError):
            body = problem_body(answer.code, answer.http_status, answer.detail, answer.advice, answer.context)
            return cls(status=answer.http_status, problem=body)
        return cls(status=202 if answer.is_new else 200, enrolment_id=answer.enrolment_id, state=answer.state)


class BatchAnswer(BaseModel):
    """One result an image, in the order of the images."""

    results: list[BatchResult]


class EnrolmentQuality(BaseModel):
    """0 (worst) to 100 (best), after ISO/IEC 29794-5."""

    unified: float
    components: dict[str, float]
    advice: list[str] = Field(default=[], description="What would make a better picture; empty where nothing would.")


class Enrolment(BaseModel):
    """An enrolment as its owner's custodians see it. `reference_id` is set once it is enrolled."""

    enrolment_id: str
    state: EnrolmentState
    reason: str = Field(description="Why it was refused, quarantined or withdrawn; empty otherwise.")
    detail: str
    reference_id: str | None
    watchlist: str
    owner: str
    subject_id: str
    lawful_basis: str
    captured_on: str
    agreement_reference: str
    image_sha256: str
    quality: EnrolmentQuality | None
    inter_eye_px: float | None
    model_id: str
    licence: str
    source: str
    accepted_at: str
    settled_at: str | None

    @classmethod
    def of(cls, view: EnrolmentView) -> Enrolment:
        has_reference = view.state in (EnrolmentState.ENROLLED, EnrolmentState.WITHDRAWN)
        quality = None
        if view.unified_quality is not None:
            components = dict(view.quality_components)
            advice = list(capture_advice(components))
            quality = EnrolmentQuality(unified=view.unified_quality, components=components, advice=advice)
        return cls(
            enrolment_id=view.enrolment_id,
            state=view.state,
            reason=view.reason,
            detail=view.detail,
            reference_id=view.reference_id if has_reference else None,
            watchlist=view.watchlist_id,
            owner=view.owner,
            subject_id=view.subject_id,
            lawful_basis=view.lawful_basis,
            captured_on=view.captured_on,
            agreement_reference=view.agreement_reference,
            image_sha256=view.image_sha256,
            quality=quality,
            inter_eye_px=view.inter_eye_px,
            model_id=view.model_id,
            licence=view.licence,
            source=view.source,
            accepted_at=_rfc3339(view.accepted_at_ms),
            settled_at=None if view.settled_at_ms is None else _rfc3339(view.settled_at_ms),
        )


class EnrolmentPage(BaseModel):
    """A page in the order of acceptance, with the counts of all; `next_after` is empty on the last page."""

    enrolments: list[Enrolment]
    next_after: str
    counts: dict[EnrolmentState, int]


class LookupRequest(BaseModel):
    """Which enrolments to look up."""

    model_config = ConfigDict(extra="forbid")

    enrolment_ids: list[str] = Field(max_length=1000)


class FoundEnrolment(BaseModel):
    """Where one enrolment stands, in short."""

    enrolment_id: str
    state: EnrolmentState
    reason: str
    detail: str

    @classmethod
    def of(cls, outcome: EnrolmentOutcome) -> FoundEnrolment:
        return cls(enrolment_id=outcome.enrolment_id, state=outcome.state, reason=outcome.reason, detail=outcome.detail)


class LookupAnswer(BaseModel):
    """Those of the enrolments asked for that exist and are the caller's to see."""

    enrolments: list[FoundEnrolment]


class WithdrawalRequest(BaseModel):
    """Why a reference is withdrawn."""

    model_config = ConfigDict(extra="forbid")

    reason: str


def _rfc3339(moment_ms: int) -> str:
    return rfc3339(datetime.fromtimestamp(moment_ms / 1000, UTC))
