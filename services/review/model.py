"""What casework is about: a request, its probes, the searches, the judgements, the release. Plain immutable values.

A `Case` and an `Examination` are the two things that are stored and versioned. Everything else is a part of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from services.review.disclosures import DisclosureApproval
from services.review.partners import PartnerEnquiry
from services.review.terms import (
    CaseState,
    CaseType,
    FacialFeature,
    Finding,
    ImageNature,
    Observation,
    OutcomeKind,
    ProbeSource,
    SearchVariant,
    StepKind,
    Suitability,
    Urgency,
)

# The words are read from here too.
__all__ = [
    "CaseState",
    "CaseType",
    "FacialFeature",
    "Finding",
    "ImageNature",
    "Observation",
    "OutcomeKind",
    "ProbeSource",
    "SearchVariant",
    "StepKind",
    "Suitability",
    "Urgency",
]


@dataclass(frozen=True, slots=True)
class CaseRequest:
    """What must be said before a picture is looked at. Checked by `casework.forms`."""

    case_reference: str
    offence: str
    purpose: str
    necessity: str
    case_type: CaseType
    urgency: Urgency
    source: ProbeSource
    nature: ImageNature
    # Who chose the face, and how.
    face_chosen_by: str
    watchlists: tuple[str, ...]
    # To whom the result goes beside the requester, in words; may be empty.
    remarks: str = ""


@dataclass(frozen=True, slots=True)
class ProbeFile:
    """The sealed original. `width` and `height` are upright pixels; `format` is the gate's name of it."""

    sha256: str
    size_bytes: int
    format: str
    width: int
    height: int
    frame_count: int


@dataclass(frozen=True, slots=True)
class ProbeFace:
    """A face found in an original, in upright pixels. Landmarks: right eye, left eye, nose tip, mouth corners."""

    index: int
    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    inter_eye_px: float
    detection_score: float
    unified_quality: float
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EnhancementStep:
    """One step with its amounts, in the units that `enhancement.LIMITS` documents."""

    kind: StepKind
    amounts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Enhancement:
    """A recipe and what it gives: the same steps on the same original always give `sha256` (PNG)."""

    enhancement_id: str
    steps: tuple[EnhancementStep, ...]
    reason: str
    sha256: str
    width: int
    height: int
    made_by: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Assessment:
    """The grade of one probe's chosen face. `measured` is what the numbers say, `grade` what the operator decided."""

    measured: Suitability
    grade: Suitability
    face: int
    words: tuple[str, ...]
    remarks: str
    assessed_by: str
    assessed_at: datetime


@dataclass(frozen=True, slots=True)
class FrameOrigin:
    """The frame of a film that a probe is: its number from 0 in order of presentation, its timestamp in units of the
    stream, its time. Anybody can cut the same frame out of the same film again."""

    film_id: str
    film_sha256: str
    track: int
    frame_number: int
    pts: int
    time_s: float
    # Which of its faces the track is.
    face: int


@dataclass(frozen=True, slots=True)
class FilmReading:
    """That a film was handed to search to be read, by whom. `reading_id` is search's name of it."""

    reading_id: str
    handed_in_by: str
    handed_in_at: datetime


@dataclass(frozen=True, slots=True)
class FilmFile:
    """A sealed film. `pieces` are the images that hold its bytes, in order."""

    film_id: str
    sha256: str
    size_bytes: int
    pieces: tuple[str, ...]
    reading: FilmReading | None = None


@dataclass(frozen=True, slots=True)
class ProbeImage:
    """One picture of a request: the sealed original, its working copy (PNG, upright), its faces, what was done."""

    probe_id: str
    original: ProbeFile
    working_sha256: str
    # Upright pixels of the original for one of the working copy; above 1 where the original is very large.
    working_scale: float
    working_width: int
    working_height: int
    faces: tuple[ProbeFace, ...]
    face: int | None = None
    assessment: Assessment | None = None
    enhancements: tuple[Enhancement, ...] = ()
    # Where it was picked from a film.
    frame: FrameOrigin | None = None


@dataclass(frozen=True, slots=True)
class Triage:
    is_accepted: bool
    reason: str
    decided_by: str
    decided_at: datetime
    # Agreements that the permission rested on that day, by watchlist.
    agreements: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProbeDecision:
    """A supervisor's decision whether flagged pictures may be used. `flags`: codes by SHA-256 of what was searched."""

    is_allowed: bool
    flags: Mapping[str, tuple[str, ...]]
    reason: str
    decided_by: str
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """One search as search answered it. `answer` is the document of `GET /v1/searches/{id}` without the candidates."""

    search_id: str
    probe_id: str
    variant: SearchVariant
    enhancement_id: str | None
    image_sha256: str
    reason: str
    searched_by: str
    searched_at: datetime
    candidate_count: int
    # SHA-256 of the answer's bytes as they came, candidates included.
    answer_sha256: str
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Appearance:
    """Where a candidate stood in one list. `score` is the raw cosine: neither a percentage nor a probability."""

    search_id: str
    variant: SearchVariant
    rank: int
    score: float
    reference_id: str


@dataclass(frozen=True, slots=True)
class CandidateForJudgement:
    """One subject of one or more lists. `candidate_id` says nothing about rank or subject."""

    candidate_id: str
    subject_id: str
    owner: str
    watchlist: str
    reference_id: str
    appearances: tuple[Appearance, ...]


@dataclass(frozen=True, slots=True)
class FeatureRemark:
    feature: FacialFeature
    observation: Observation
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Adjudication:
    """One judgement of one candidate. A later one of the same candidate takes its place; both stay on record."""

    candidate_id: str
    finding: Finding
    features: tuple[FeatureRemark, ...]
    remarks: str
    judged_at: datetime
    # Seconds between the first opening of this candidate and the judgement, by the service's clock.
    viewed_s: float
    # Taken back by the examiner: the candidate counts as not judged until it is judged again.
    is_undone: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """A person's signature on a judgement: who, when, by which training, over which bytes, where in the audit log."""

    signed_by: str
    signed_at: datetime
    # None where only the identity provider's word is known: the token says until when, not since when.
    trained_on: date | None
    training_expires_on: date
    # SHA-256 of the judgement's canonical bytes; the audit entry holds the same.
    judgement_sha256: str
    audit_sequence: int


@dataclass(frozen=True, slots=True)
class Examination:
    """One person's judgement of all candidates: `ordinal` 1 first, 2 second. Blind to the other."""

    examination_id: str
    request_id: str
    force: str
    ordinal: int
    examiner: str
    version: int
    # This person's own order of the candidates.
    order: tuple[str, ...]
    started_at: datetime
    opened_at: Mapping[str, datetime] = field(default_factory=dict)
    adjudications: tuple[Adjudication, ...] = ()
    signature: Signature | None = None

    def standing(self) -> dict[str, Adjudication]:
        """The adjudication that counts for each judged candidate; undone ones are gone from it."""
        found: dict[str, Adjudication] = {}
        for adjudication in self.adjudications:
            found[adjudication.candidate_id] = adjudication
        return {candidate_id: one for candidate_id, one in found.items() if not one.is_undone}

    def findings(self) -> dict[str, Finding]:
        """The finding that counts for each judged candidate."""
        return {candidate_id: one.finding for candidate_id, one in self.standing().items()}

    def unjudged(self) -> tuple[str, ...]:
        judged = self.standing()
        return tuple(candidate_id for candidate_id in self.order if candidate_id not in judged)


@dataclass(frozen=True, slots=True)
class Arbitration:
    """A supervisor's decision of what the two judgements differ in."""

    findings: Mapping[str, Finding]
    reasons: Mapping[str, str]
    signature: Signature


@dataclass(frozen=True, slots=True)
class PotentialName:
    """A candidate that both judgements, or the arbitration, hold for a possible match. Not an identification."""

    candidate_id: str
    subject_id: str
    owner: str
    watchlist: str
    reference_id: str
    agreement: str


@dataclass(frozen=True, slots=True)
class AuditPosition:
    """Where an entry stands in the audit log; `leaf_hash` is hex of SHA-256(0x00 || canonical bytes)."""

    sequence: int
    leaf_hash: str
    entry_id: str
    recorded_at: str

    @property
    def code(self) -> str:
        """What a reader types or scans to find the entry and check it."""
        return f"likeness:{self.sequence}:{self.leaf_hash}"


@dataclass(frozen=True, slots=True)
class Release:
    """The reviewed result as it goes to the requesting officer. `names` is empty for "no potential name"."""

    names: tuple[PotentialName, ...]
    released_by: str
    released_at: datetime
    retain_until: date
    statements: tuple[str, ...]
    # The entry written before the result was given out.
    audit: AuditPosition


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: OutcomeKind
    remarks: str
    reported_by: str
    reported_at: datetime


@dataclass(frozen=True, slots=True)
class Mandate:
    """The rights of whoever kept a probe, as the verified token had them: by these it is searched again, as far as they
    still count on that day."""

    roles: tuple[str, ...]
    watchlists: tuple[str, ...]
    trained_until: date | None


@dataclass(frozen=True, slots=True)
class UnsolvedEntry:
    """Why a probe is kept although nobody was named: who authorised it, until when, who is told of a new candidate."""

    authority: str
    reason: str
    kept_by: str
    kept_at: datetime
    expires_on: date
    # When a person last searched it again against what was enrolled since; None: not yet.
    searched_again_at: datetime | None = None
    # None of what was kept before this was noted.
    mandate: Mandate | None = None


@dataclass(frozen=True, slots=True)
class Erasure:
    """That the pictures of a case were erased. What was said and judged stays."""

    reason: str
    erased_by: str
    erased_at: datetime


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A planted probe: what is right. Nobody but its planter learns of it before it is decided."""

    planted_by: str
    planted_at: datetime
    # (owner, subject_id) of the right person, or none when nobody enrolled is right.
    subject: tuple[str, str] | None


# Nobody has begun to judge; a refused probe is one that nobody ever will.
_UNTAKEN = frozenset({CaseState.SEARCHED, CaseState.FLAGGED, CaseState.UNSUITABLE})


@dataclass(frozen=True, slots=True)
class Case:
    """A request and everything that was done for it, except the judgements, which are `Examination`s."""

    request_id: str
    number: str
    force: str
    state: CaseState
    version: int
    request: CaseRequest
    requested_by: str
    requested_at: datetime
    due_at: datetime
    updated_at: datetime
    probes: tuple[ProbeImage, ...]
    films: tuple[FilmFile, ...] = ()
    triage: Triage | None = None
    searches: tuple[SearchRecord, ...] = ()
    # What other forces' platforms were asked; their lists are judged there, none of it stands in `candidates`.
    enquiries: tuple[PartnerEnquiry, ...] = ()
    candidates: tuple[CandidateForJudgement, ...] = ()
    # What supervisors decided about pictures that a search had flagged, oldest first.
    probe_decisions: tuple[ProbeDecision, ...] = ()
    # By candidate, once both judgements are signed and agree, or are arbitrated.
    decided: Mapping[str, Finding] = field(default_factory=dict)
    arbitration: Arbitration | None = None
    release: Release | None = None
    outcome: Outcome | None = None
    unsolved: UnsolvedEntry | None = None
    known_answer: KnownAnswer | None = None
    erasure: Erasure | None = None
    # The unsolved case that this one was opened from, because a new search of it found somebody new.
    continues: str | None = None
    # Who alone is told that it exists, until one of them takes it up; empty for a case like any other.
    told: tuple[str, ...] = ()
    # To whom its full pack may be given, or was.
    disclosures: tuple[DisclosureApproval, ...] = ()

    def pictures(self) -> frozenset[str]:
        """SHA-256 of everything that the case holds in the image store; nothing once it was erased."""
        return frozenset() if self.erasure is not None else self.pictures_ever()

    def pictures_ever(self) -> frozenset[str]:
        """SHA-256 of everything that it holds, or held before it was erased."""
        held = {sha256 for probe in self.probes for sha256 in (probe.original.sha256, probe.working_sha256)}
        held |= {piece for film in self.films for piece in film.pieces}
        return frozenset(held | {made.sha256 for probe in self.probes for made in probe.enhancements})

    def retention_ends(self) -> date | None:
        """The day from which its pictures may be erased; None while nothing says so."""
        if self.unsolved is not None:
            return self.unsolved.expires_on
        return self.release.retain_until if self.release is not None else None

    def is_told_to(self, person_id: str, now: datetime, *, is_supervisor: bool) -> bool:
        """Whether a person may know of it. What its own people have left lying until it was due is everybody's work;
        a flagged probe is a supervisor's to decide on."""
        is_waiting = bool(self.told) and self.state in _UNTAKEN and now < self.due_at
        decides = is_supervisor and self.state is CaseState.FLAGGED
        return not is_waiting or decides or person_id in self.told

    def probe(self, probe_id: str) -> ProbeImage | None:
        return next((probe for probe in self.probes if probe.probe_id == probe_id), None)

    def candidate(self, candidate_id: str) -> CandidateForJudgement | None:
        return next((found for found in self.candidates if found.candidate_id == candidate_id), None)


@dataclass(frozen=True, slots=True)
class Training:
    """That a person was trained to compare faces, and until when that counts. The day of expiry no longer counts."""

    person_id: str
    force: str
    course: str
    certificate: str
    trained_on: date
    expires_on: date
    recorded_by: str
    recorded_at: datetime

    def is_current(self, on: date) -> bool:
        return self.trained_on <= on < self.expires_on
