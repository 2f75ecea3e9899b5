"""The answer to a search as it is given out and stored: plain data, in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from services.search.identification.calibration import Calibration, ScoreEvidence, calibrations_document, no_evidence
from services.search.identification.operating_points import OperatingPoint
from services.search.identification.probe_policy import ProbeFlag, flags_of
from services.search.identification.requests import SearchMode, SearchRequest
from services.search.identification.statements import statements
from services.search.policy import Decision
from services.search.ports import Candidate, SearchScope, SearchStatus
from services.search.upkeep.index import EXACT, GalleryIndex
from services.shared.biometric import Assessment, DetectedFace, ImageAnalysis, ModelProvenance
from services.shared.clock import rfc3339
from services.shared.gallery_snapshot import GallerySnapshot

# Enough to repeat a search to 1e-6, and no more of the template than that; docs/policy.md has what it is worth.
SCORE_DECIMALS = 6
INVESTIGATION_WHY = "Investigation mode returns a list of fixed length for a human to judge; no threshold is applied."


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """Everything that one search came to."""

    search_id: str
    request: SearchRequest
    probe_sha256: str
    opened_at: datetime
    analysis: ImageAnalysis
    face_index: int
    # That which held when the gallery had been searched; its scopes are those of `scopes`, in the same order.
    decision: Decision
    scopes: Sequence[SearchScope]
    candidates: Sequence[Candidate]
    searchable: int
    unsearchable: int | None
    gallery_name: str
    # By watchlist; empty in investigation mode.
    operating_points: Mapping[str, OperatingPoint]
    # None where the gallery's store cannot tell.
    snapshot: GallerySnapshot | None = None
    # A person of the force's, or the one whose token it is.
    face_chosen_by: str = ""
    # Where the probe is a still of a film: which, and every frame that counts.
    film: Mapping[str, Any] | None = None
    # By watchlist, where its scores were measured.
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    index: GalleryIndex = EXACT

    def evidence_at(self, score: float, watchlist_id: str) -> ScoreEvidence:
        """What is known of a score in this very search."""
        if self.film is not None and len(self.film["frames"]) > 1:
            return no_evidence(self.searchable, "scores that are means over several frames were not measured")
        calibration = self.calibrations.get(watchlist_id)
        if calibration is None:
            return no_evidence(self.searchable, f"scores of this model were not measured for {watchlist_id}")
        return calibration.at(score, self.analysis.faces[self.face_index].quality.unified, self.searchable)


def answer_document(outcome: SearchOutcome) -> dict[str, Any]:
    """The answer without its stage times, which are known only once it has been stored."""
    analysis = outcome.analysis
    return {
        "search_id": outcome.search_id,
        "status": SearchStatus.DONE.value,
        "searched_at": rfc3339(outcome.opened_at),
        "request": _request(outcome.request),
        "probe": _probe(outcome),
        **({} if outcome.film is None else {"film": dict(outcome.film)}),
        "faces": face_list(analysis.faces),
        "face": outcome.face_index,
        "candidates": [_candidate(outcome, candidate) for candidate in outcome.candidates],
        "searched": [
            {"watchlist": scope.watchlist_id, "owners": sorted(scope.owners), "agreements": list(permitted.agreements)}
            for scope, permitted in zip(outcome.scopes, outcome.decision.scopes, strict=True)
        ],
        "searchable": outcome.searchable,
        "unsearchable": outcome.unsearchable,
        "gallery": outcome.gallery_name,
        "gallery_index": outcome.index.document(),
        "gallery_snapshot": None if outcome.snapshot is None else outcome.snapshot.document(),
        "model": model_document(analysis.model),
        "threshold": _threshold(outcome),
        "calibrations": calibrations_document(outcome.calibrations, outcome.searchable),
        "policy": {"digest": outcome.decision.policy, "watchlists": outcome.decision.watchlists},
        "statements": _statements(outcome),
    }


def _request(request: SearchRequest) -> dict[str, Any]:
    return {
        "case_reference": request.case_reference,
        "purpose": request.purpose,
        "offence": request.offence,
        "source": request.source.value,
        "nature": request.nature.value,
        "case_type": request.case_type.value,
        "watchlists": list(request.watchlists),
        "mode": request.mode.value,
        "max_candidates": request.max_candidates,
    }


def _probe(outcome: SearchOutcome) -> dict[str, Any]:
    image, face = outcome.analysis.image, outcome.analysis.faces[outcome.face_index]
    flags = flags_of(outcome.analysis, face, outcome.request.nature)
    return {
        "sha256": outcome.probe_sha256,
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "frames": image.frame_count,
        "frame_searched": "first" if image.frame_count > 1 else "only",
        "grade": None if face.assessment is None else face.assessment.grade,
        "flags": [flag_document(flag) for flag in flags],
        "needs_supervisor": bool(flags),
        "face_chosen_by": outcome.face_chosen_by,
    }


def _candidate(outcome: SearchOutcome, candidate: Candidate) -> dict[str, Any]:
    return {
        "rank": candidate.rank,
        "subject_id": candidate.subject_id,
        "reference_id": candidate.reference_id,
        "watchlist": candidate.watchlist_id,
        "owner": candidate.owner,
        "score": round(candidate.score, SCORE_DECIMALS),
        "score_evidence": outcome.evidence_at(candidate.score, candidate.watchlist_id).document(),
    }


def with_timings(result: bytes, timings_ms: Mapping[str, float] | None) -> bytes:
    """The stored JSON of an answer with its stage times as last member; null where a crash took them."""
    times = None if timings_ms is None else {stage: round(value, 3) for stage, value in timings_ms.items()}
    return result[:-1] + b',"timings_ms":' + orjson.dumps(times) + b"}"


def flag_document(flag: ProbeFlag) -> dict[str, Any]:
    return {
        "code": flag.code,
        "detail": flag.detail,
        "value": None if flag.value is None else round(flag.value, 2),
        "threshold": flag.threshold,
    }


def face_list(faces: Sequence[DetectedFace]) -> list[dict[str, Any]]:
    """Faces as the caller sees them, so that one can be picked: never their templates."""
    return [
        {
            "index": index,
            "box": {
                "x": _px(face.box.x),
                "y": _px(face.box.y),
                "width": _px(face.box.width),
                "height": _px(face.box.height),
            },
            "landmarks": [[_px(x), _px(y)] for x, y in face.landmarks],
            "inter_eye_px": _px(face.inter_eye_px),
            "detection_score": round(face.detection_score, 4),
            "quality": {
                "unified": round(face.quality.unified, 1),
                "components": {name: round(value, 1) for name, value in sorted(face.quality.components.items())},
            },
            "assessment": None if face.assessment is None else assessment_document(face.assessment),
        }
        for index, face in enumerate(faces)
    ]


def assessment_document(assessment: Assessment) -> dict[str, Any]:
    """The grade with the counts that it stands on; the interval is of 95 %."""
    rate = assessment.false_non_match
    return {
        "grade": assessment.grade,
        "false_non_match": {
            "misses": rate.misses,
            "searches": rate.searches,
            "low": round(rate.low, 4),
            "high": round(rate.high, 4),
            "threshold_fpir": round(rate.threshold_fpir, 4),
            "basis": rate.basis,
        },
        "advice": list(assessment.advice),
    }


def model_document(model: ModelProvenance) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "detector": model.detector,
        "detector_sha256": model.detector_sha256,
        "recogniser": model.recogniser,
        "recogniser_sha256": model.recogniser_sha256,
        "licence": model.licence,
        "dimension": model.dimension,
        "preprocessing_version": model.preprocessing_version,
        "runtime": model.runtime,
        "provider": model.provider,
    }


def _px(value: float) -> float:
    """Hundredths of a pixel: more is noise of the detector."""
    return round(value, 2)


def _threshold(outcome: SearchOutcome) -> dict[str, Any]:
    """One value and version where all watchlists share them; always the point of each watchlist and why."""
    mode, points = outcome.request.mode, outcome.operating_points
    by_watchlist = [
        {
            "watchlist": watchlist_id,
            "value": point.threshold,
            "version": point.version,
            "is_evidenced": point.is_evidenced,
            "evidence": point.evidence.model_dump(exclude_none=True),
            # Here: with as many compared and a probe of this quality.
            "score_evidence": outcome.evidence_at(point.threshold, watchlist_id).document(),
        }
        for watchlist_id, point in points.items()
    ]
    shared = {(point.threshold, point.version) for point in points.values()}
    value, version = next(iter(shared)) if len(shared) == 1 else (None, None)
    return {"value": value, "version": version, "why": _why(mode, points, shared), "by_watchlist": by_watchlist}


def _why(mode: SearchMode, points: Mapping[str, OperatingPoint], shared: set[tuple[float, str]]) -> str:
    if mode is SearchMode.INVESTIGATION:
        return INVESTIGATION_WHY
    applied = "score >= value" if len(shared) == 1 else "score >= the value of the candidate's watchlist"
    if all(point.is_evidenced for point in points.values()):
        return f"Identification mode: {applied}."
    return f"Identification mode: {applied}; unevidenced default, its error rates on this gallery are not known."


def _statements(outcome: SearchOutcome) -> list[str]:
    searched = []
    for scope, permitted in zip(outcome.scopes, outcome.decision.scopes, strict=True):
        by = f" by {', '.join(permitted.agreements)}" if permitted.agreements else ""
        searched.append(f"{scope.watchlist_id} of {', '.join(sorted(scope.owners)) or 'nobody'}{by}")
    face = outcome.analysis.faces[outcome.face_index]
    said = statements(
        searchable=outcome.searchable,
        unsearchable=outcome.unsearchable,
        probe_sha256=outcome.probe_sha256,
        face=face,
        flags=[flag.code for flag in flags_of(outcome.analysis, face, outcome.request.nature)],
        nature=outcome.request.nature,
        searched=searched,
        unevidenced=[name for name, point in outcome.operating_points.items() if not point.is_evidenced],
    )
    more = [outcome.index.statement(), "" if outcome.film is None else _film_statement(outcome.film)]
    return [*said, *(statement for statement in more if statement)]


def _film_statement(film: Mapping[str, Any]) -> str:
    frames = ", ".join(f"{frame['frame_number']} at {frame['time_s']:.2f} s" for frame in film["frames"])
    return (
        f"The probe is a frame of the film SHA-256 {film['sha256']}, cut out as decoded. The scores are those of track "
        f"{film['track']}: the {film['fusion']} of the frames {frames}."
    )
