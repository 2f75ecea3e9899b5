"""The REST API's answers as OpenAPI describes them. Answers are made in answer.py; a test holds the two together."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.search.identification.requests import (
    DEFAULT_CANDIDATES,
    MAX_CANDIDATES,
    MAX_TEXT_CHARS,
    MIN_CANDIDATES,
    ImageNature,
    ProbeSource,
    SearchMode,
)
from services.search.upkeep.models import SearchableSnapshot, UsedIndex
from services.shared.watchlists import CaseType


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProbeFlag(_Strict):
    """What speaks against the probe. `value` and `threshold` are null for what the file, or the request, says of it."""

    code: str
    detail: str
    value: float | None
    threshold: float | None


class Probe(_Strict):
    """The sealed original: digest of the file as received, upright size in pixels, format found."""

    sha256: str
    width: int
    height: int
    format: str
    frames: int = Field(description="Pictures in the file; of several the first is searched.")
    frame_searched: Literal["only", "first"]
    grade: Literal["suitable", "with_caution", "unsuitable"] | None
    flags: list[ProbeFlag]
    face_chosen_by: str = Field(description="Who chose the face: a person_id, or as the request said.")
    needs_supervisor: bool = Field(description="A supervisor has to decide whether a flagged probe may be used.")


class Box(_Strict):
    x: float
    y: float
    width: float
    height: float


class FaceQuality(_Strict):
    """0 (worst) to 100 (best)."""

    unified: float
    components: dict[str, float]


class FalseNonMatch(_Strict):
    """Mated searches at this quality that missed, with a 95 % interval, at the threshold of that FPIR."""

    misses: int
    searches: int
    low: float
    high: float
    threshold_fpir: float
    basis: str


class FaceAssessment(_Strict):
    grade: Literal["suitable", "with_caution", "unsuitable"]
    false_non_match: FalseNonMatch
    advice: list[str]


class Face(_Strict):
    """A face of the probe. Landmarks: right eye, left eye, nose tip, right and left mouth corner (the subject's)."""

    index: int
    box: Box
    landmarks: list[tuple[float, float]]
    inter_eye_px: float
    detection_score: float
    quality: FaceQuality
    assessment: FaceAssessment | None


class ScoreEvidence(_Strict):
    """FPIR: the share of searches for people who are not enrolled with anybody at this score, for as many references
    and probes of this quality, with a 95 % interval. All null where there is no evidence, `fpir` alone where too few
    searches reached the score for more than an upper limit; `says` has the reason. Never a probability."""

    fpir: float | None
    low: float | None
    high: float | None
    says: str


class CalibrationUsed(_Strict):
    """The measurement that a watchlist's rates come from, with `enrolled` references; this search has `searchable`."""

    watchlist: str
    version: str
    enrolled: int
    searchable: int
    evidence: dict[str, Any]


class AnsweredCandidate(_Strict):
    """One subject. `score` is the raw cosine in [-1, 1] to six decimals: neither a percentage nor a probability."""

    rank: int
    subject_id: str
    reference_id: str
    watchlist: str
    owner: str
    score: float
    score_evidence: ScoreEvidence | None = Field(default=None, description="Absent from answers of earlier versions.")


class SearchedScope(_Strict):
    watchlist: str
    owners: list[str]
    agreements: list[str]


class Model(_Strict):
    model_id: str
    detector: str
    detector_sha256: str
    recogniser: str
    recogniser_sha256: str
    licence: str
    dimension: int
    preprocessing_version: str
    runtime: str
    provider: str


class WatchlistThreshold(_Strict):
    watchlist: str
    value: float
    version: str
    is_evidenced: bool
    evidence: dict[str, Any]
    score_evidence: ScoreEvidence | None = Field(default=None, description="What the value is worth in this search.")


class Threshold(_Strict):
    """`value` is null in investigation mode and where the watchlists differ; `why` says which."""

    value: float | None
    version: str | None
    why: str
    by_watchlist: list[WatchlistThreshold]


class Timings(_Strict):
    """Milliseconds. `audit` is the sum of both entries, which run beside other stages; `total` is less than the sum."""

    gate: float
    detect: float
    template: float
    gallery: float
    audit: float
    total: float


class RequestEcho(_Strict):
    case_reference: str
    purpose: str
    offence: str
    source: ProbeSource
    nature: ImageNature = Field(default=ImageNature.UNSTATED, description="Absent from answers of earlier versions.")
    case_type: CaseType
    watchlists: list[str]
    mode: SearchMode
    max_candidates: int


class DecidedBy(_Strict):
    """SHA-256 digests of the policies, and of the watchlists and agreements, by which the search was permitted."""

    digest: str
    watchlists: str


class FilmFrame(_Strict):
    """A frame as it can be found again, and the still that was cut out of it."""

    frame_number: int
    pts: int
    time_s: float
    face: int
    still_sha256: str


class FilmProbe(_Strict):
    """Where the probe comes from: a track of a film, and every frame whose scores are fused. The first is the probe."""

    film_id: str
    sha256: str
    track: int
    fusion: str
    frames: list[FilmFrame]


class SearchAnswer(_Strict):
    """A candidate list: at most one candidate a subject, best score first."""

    search_id: str
    status: Literal["done"]
    searched_at: str
    request: RequestEcho
    probe: Probe
    film: FilmProbe | None = Field(default=None, description="Only where the probe was cut out of a film.")
    faces: list[Face]
    face: int = Field(description="Index of the face that was searched.")
    candidates: list[AnsweredCandidate]
    searched: list[SearchedScope]
    searchable: int = Field(description="References that were compared.")
    unsearchable: int | None = Field(description="Enrolments that could not be searched; null while not known.")
    gallery: str
    gallery_index: UsedIndex | None = Field(default=None, description="Null in answers from before it was recorded.")
    gallery_snapshot: SearchableSnapshot | None = Field(
        default=None, description="Null where the gallery is shared by several processes."
    )
    model: Model
    threshold: Threshold
    calibrations: list[CalibrationUsed] = []
    policy: DecidedBy
    statements: list[str]
    timings_ms: Timings | None


class FaceOutcome(_Strict):
    """One of several faces: its answer, or why there is none."""

    face: int
    answer: SearchAnswer | None
    problem: dict[str, Any] | None


class SeveralAnswers(_Strict):
    """In the order in which the faces were named."""

    searches: list[FaceOutcome]


class UnansweredSearch(_Strict):
    """A search that has no answer (yet): open, refused, failed or unknown, and why."""

    search_id: str
    status: Literal["open", "refused", "failed", "unknown"]
    problem: dict[str, Any] | None


class Problem(BaseModel):
    """RFC 9457. Some problems have further members: `fields`, `reasons`, `faces`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    advice: str


_FORM_EXAMPLE: dict[str, Any] = {
    "case_reference": "NS/2026/004711",
    "purpose": "prevention_and_detection",
    "offence": "burglary",
    "source": "cctv",
    "nature": "video_frame",
    "case_type": "suspect",
    "watchlists": ["custody"],
    "mode": "identification",
    "max_candidates": 20,
}

SEARCH_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image", "case_reference", "purpose", "offence", "source", "watchlists"],
                "additionalProperties": False,
                "properties": {
                    "image": {"type": "string", "format": "binary", "description": "One still, at most 32 MiB."},
                    "case_reference": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS},
                    "purpose": {
                        "type": "string",
                        "description": "A policing purpose that every watchlist asked for may be searched for.",
                    },
                    "offence": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS},
                    "source": {"type": "string", "enum": [source.value for source in ProbeSource]},
                    "nature": {
                        "type": "string",
                        "enum": [nature.value for nature in ImageNature],
                        "default": ImageNature.UNSTATED.value,
                        "description": "What kind of picture it is. `drawing`, `composite`, `look_alike` and "
                        "`generated` are not searched (403); `retouched` and `rephotographed` flag the probe: a "
                        "supervisor decides whether its candidates may be used.",
                    },
                    "case_type": {
                        "type": "string",
                        "enum": [case_type.value for case_type in CaseType],
                        "default": CaseType.UNSTATED.value,
                        "description": "Who the person on the probe is to the case.",
                    },
                    "watchlists": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string"},
                        "description": "Repeat the field for each watchlist.",
                    },
                    "mode": {
                        "type": "string",
                        "enum": [mode.value for mode in SearchMode],
                        "default": SearchMode.INVESTIGATION.value,
                    },
                    "max_candidates": {
                        "type": "integer",
                        "minimum": MIN_CANDIDATES,
                        "maximum": MAX_CANDIDATES,
                        "default": DEFAULT_CANDIDATES,
                    },
                    "face": {
                        "type": "integer",
                        "minimum": 0,
                        "description": "Index of the face to search, where several are found.",
                    },
                    "face_chosen_by": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": MAX_TEXT_CHARS,
                        "description": "Who chose the face from the scene, where it was not you.",
                    },
                },
            },
            "encoding": {"watchlists": {"style": "form", "explode": True}},
            "example": {"image": "(file)", **_FORM_EXAMPLE},
        }
    },
}

SEVERAL_FORM: dict[str, Any] = deepcopy(SEARCH_FORM)
_SEVERAL: dict[str, Any] = SEVERAL_FORM["content"]["multipart/form-data"]
_SEVERAL["schema"]["required"].append("face")
_SEVERAL["schema"]["properties"]["face"] = {
    "type": "array",
    "minItems": 1,
    "maxItems": 8,
    "items": {"type": "integer", "minimum": 0},
    "description": "Repeat the field for each face to search.",
}
_SEVERAL["encoding"]["face"] = {"style": "form", "explode": True}
_SEVERAL["example"] = {"image": "(file)", **_FORM_EXAMPLE, "face": [0, 2]}

SEARCH_EXAMPLE: dict[str, Any] = {
    "search_id": "01a20576-dceb-7497-9876-c60afe8b4513",
    "status": "done",
    "searched_at": "2026-11-22T22:53:25.610Z",
    "request": _FORM_EXAMPLE,
    "probe": {
        "sha256": "0f460bf0765c26861b17c8a5a4ab93deea37d38051f2fabfb137edc722d3a50d",
        "width": 1600,
        "height": 1200,
        "format": "JPEG",
        "frames": 1,
        "frame_searched": "only",
        "grade": "suitable",
        "flags": [],
        "face_chosen_by": "ns-op-17",
        "needs_supervisor": False,
    },
    "faces": [
        {
            "index": 0,
            "box": {"x": 611.2, "y": 302.9, "width": 148.6, "height": 193.3},
            "landmarks": [[648.1, 378.0], [713.9, 375.5], [682.2, 417.3], [655.8, 451.1], [708.4, 449.6]],
            "inter_eye_px": 65.85,
            "detection_score": 0.9312,
            "quality": {"unified": 71.3, "components": {"sharpness": 64.0}},
            "assessment": {
                "grade": "suitable",
                "false_non_match": {
                    "misses": 4,
                    "searches": 398,
                    "low": 0.0039,
                    "high": 0.0256,
                    "threshold_fpir": 0.01,
                    "basis": "development faces",
                },
                "advice": [],
            },
        }
    ],
    "face": 0,
    "candidates": [
        {
            "rank": 1,
            "subject_id": "NS-104233",
            "reference_id": "019c1d2e-7a44-7f21-8c55-2f0c0fd0a1b7",
            "watchlist": "custody",
            "owner": "northshire",
            "score": 0.6174,
            "score_evidence": {
                "fpir": 0.001307,
                "low": 0.000315,
                "high": 0.004829,
                "says": "FPIR at this score ≈ 0.0013 [0.00032, 0.0048] for N=107,500, quality 60 and over: 3 of 12,340 "
                "searches for people not enrolled had somebody at it, N=20,000, evidence custody-2026-11.",
            },
        }
    ],
    "searched": [{"watchlist": "custody", "owners": ["northshire"], "agreements": []}],
    "searchable": 107500,
    "unsearchable": 312,
    "gallery": "exact in-process",
    "gallery_index": {"kind": "exact", "is_exact": True, "build": {}, "search": {}, "recall": None},
    "gallery_snapshot": {
        "snapshot_id": "3" * 64,
        "is_exact": True,
        "model_id": "yunet+sface+p1",
        "partitions": [{"watchlist": "custody", "owner": "northshire", "references": 107500, "digest": "9" * 64}],
    },
    "model": {
        "model_id": "yunet+sface+p1",
        "detector": "yunet",
        "detector_sha256": "d" * 64,
        "recogniser": "sface",
        "recogniser_sha256": "e" * 64,
        "licence": "Apache-2.0",
        "dimension": 128,
        "preprocessing_version": "p1",
        "runtime": "onnxruntime 1.22.0",
        "provider": "CPUExecutionProvider",
    },
    "threshold": {
        "value": 0.41,
        "version": "custody-2026-11",
        "why": "Identification mode: score >= value.",
        "by_watchlist": [
            {
                "watchlist": "custody",
                "value": 0.41,
                "version": "custody-2026-11",
                "is_evidenced": True,
                "evidence": {"reference": "evaluation-7", "fpir": 0.01, "fnir": 0.03, "enrolled": 107500},
            }
        ],
    },
    "calibrations": [
        {
            "watchlist": "custody",
            "version": "custody-2026-11",
            "enrolled": 20000,
            "searchable": 107500,
            "evidence": {"reference": "evaluation-7"},
        }
    ],
    "policy": {"digest": "a" * 64, "watchlists": "b" * 64},
    "statements": ["FOR INTELLIGENCE PURPOSES ONLY. ..."],
    "timings_ms": {"gate": 9.3, "detect": 11.2, "template": 22.4, "gallery": 4.1, "audit": 3.9, "total": 55.0},
}
