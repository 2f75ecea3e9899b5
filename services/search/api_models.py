"""The REST API's answers as OpenAPI describes them. Answers are made in answer.py; a test holds the two together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.search.requests import (
    DEFAULT_CANDIDATES,
    MAX_CANDIDATES,
    MAX_TEXT_CHARS,
    MIN_CANDIDATES,
    ProbeSource,
    SearchMode,
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Probe(_Strict):
    """The sealed original: digest of the file as received, upright size in pixels, format found."""

    sha256: str
    width: int
    height: int
    format: str


class Box(_Strict):
    x: float
    y: float
    width: float
    height: float


class FaceQuality(_Strict):
    """0 (worst) to 100 (best)."""

    unified: float
    components: dict[str, float]


class Face(_Strict):
    """A face of the probe. Landmarks: right eye, left eye, nose tip, right and left mouth corner (the subject's)."""

    index: int
    box: Box
    landmarks: list[tuple[float, float]]
    inter_eye_px: float
    detection_score: float
    quality: FaceQuality


class AnsweredCandidate(_Strict):
    """One subject. `score` is the raw cosine in [-1, 1]: neither a percentage nor a probability."""

    rank: int
    subject_id: str
    reference_id: str
    watchlist: str
    owner: str
    score: float


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
    watchlists: list[str]
    mode: SearchMode
    max_candidates: int


class SearchAnswer(_Strict):
    """A candidate list: at most one candidate a subject, best score first."""

    search_id: str
    status: Literal["done"]
    searched_at: str
    request: RequestEcho
    probe: Probe
    faces: list[Face]
    face: int = Field(description="Index of the face that was searched.")
    candidates: list[AnsweredCandidate]
    searched: list[SearchedScope]
    searchable: int = Field(description="References that were compared.")
    unsearchable: int | None = Field(description="Enrolments that could not be searched; null while not known.")
    gallery: str
    model: Model
    threshold: Threshold
    statements: list[str]
    timings_ms: Timings | None


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
                },
            },
            "encoding": {"watchlists": {"style": "form", "explode": True}},
            "example": {
                "image": "(file)",
                "case_reference": "NS/2026/004711",
                "purpose": "prevention_and_detection",
                "offence": "burglary",
                "source": "cctv",
                "watchlists": ["custody"],
                "mode": "investigation",
                "max_candidates": 20,
            },
        }
    },
}
