"""Small labelled sets and runs for tests."""

from __future__ import annotations

from pathlib import Path

from services.local.evaluation.labelled_set import LabelledStill
from services.local.evaluation.records import ListedSubject, ProbeResult, Run


def still(identity: str, name: str = "", split: str = "probe", **groups: str) -> LabelledStill:
    name = name or f"{identity}.jpg"
    return LabelledStill(name, Path(name), identity, split, "somewhere", groups)


def result(
    identity: str,
    *,
    is_mated: bool = True,
    rank: int = 1,
    score: float | None = 0.8,
    other: float | None = 0.2,
    quality: float | None = 60.0,
    eyes: float | None = 50.0,
    failure: str = "",
) -> ProbeResult:
    best = None if other is None else ListedSubject("somebody else", other, "else.jpg")
    return ProbeResult(
        name=f"{identity}.jpg",
        identity=identity,
        source="somewhere",
        is_mated=is_mated,
        rank=rank,
        score=score,
        best_other=best,
        quality=quality,
        inter_eye_px=eyes,
        faces=1,
        failure=failure,
    )


def failed(identity: str) -> ProbeResult:
    return result(identity, rank=0, score=None, other=None, quality=None, eyes=None, failure="no_face_found")


def run_of(*results: ProbeResult, left_out: tuple[ProbeResult, ...] = ()) -> Run:
    return Run("as they are", results, left_out)
