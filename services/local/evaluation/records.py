"""What one search of an evaluation came to, and whole runs as the metric functions take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from services.local.evaluation.labelled_set import LabelledStill
from services.local.evaluation.metrics import NO_SCORE, UNRANKED, MatedSearches, NonMatedSearches


@dataclass(frozen=True, slots=True)
class ListedSubject:
    """A candidate as the platform ranked it. `subject` is the identity of the manifest."""

    subject: str
    score: float
    still: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One search. `failure` is the platform's problem code where there was no search: a failure to acquire.

    `best_other` is the best-ranked candidate who is somebody else: a false positive where its score reaches a
    threshold and the probe's own subject is not enrolled.
    """

    name: str
    identity: str
    source: str
    is_mated: bool
    rank: int = UNRANKED
    score: float | None = None
    best_other: ListedSubject | None = None
    quality: float | None = None
    inter_eye_px: float | None = None
    faces: int = 0
    failure: str = ""
    groups: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    still: LabelledStill,
    candidates: Sequence[ListedSubject],
    *,
    is_mated: bool,
    quality: float | None,
    inter_eye_px: float | None,
    faces: int,
) -> ProbeResult:
    """Where the probe's own subject stands in a candidate list that is best first, one candidate a subject."""
    own = next((place for place, item in enumerate(candidates) if item.subject == still.identity), None)
    return ProbeResult(
        name=still.name,
        identity=still.identity,
        source=still.source,
        is_mated=is_mated,
        rank=UNRANKED if own is None else own + 1,
        score=None if own is None else candidates[own].score,
        best_other=next((item for item in candidates if item.subject != still.identity), None),
        quality=quality,
        inter_eye_px=inter_eye_px,
        faces=faces,
        groups=dict(still.groups),
    )


def not_acquired(still: LabelledStill, failure: str, *, is_mated: bool) -> ProbeResult:
    """A probe that could not be searched: missed if mated, without candidates otherwise."""
    return ProbeResult(still.name, still.identity, still.source, is_mated, failure=failure, groups=dict(still.groups))


@dataclass(frozen=True, slots=True)
class Run:
    """Every search under one condition ("as they are", "24 px between the eyes", ...).

    `leave_one_out` are further non-mated searches: enrolled stills searched with their own subject left out of the
    list, so with N - 1 enrolled.
    """

    condition: str
    probes: tuple[ProbeResult, ...]
    leave_one_out: tuple[ProbeResult, ...] = ()

    def where(self, keep: Callable[[ProbeResult], bool]) -> Run:
        return Run(
            self.condition,
            tuple(result for result in self.probes if keep(result)),
            tuple(result for result in self.leave_one_out if keep(result)),
        )

    def mated(self) -> MatedSearches:
        results = [result for result in self.probes if result.is_mated]
        return MatedSearches(
            np.array([result.rank for result in results], np.int64),
            np.array([NO_SCORE if result.score is None else result.score for result in results], np.float64),
            _clusters(results),
        )

    def non_mated(self) -> NonMatedSearches:
        """Probes whose subject is not enrolled: the plain reading of the protocol."""
        return _non_mated([result for result in self.probes if not result.is_mated])

    def non_mated_leaving_one_out(self) -> NonMatedSearches:
        """Every search with its own subject left out of the list: many more, so smaller FPIRs can be told."""
        return _non_mated([*self.probes, *self.leave_one_out])


def _non_mated(results: Sequence[ProbeResult]) -> NonMatedSearches:
    scores = [NO_SCORE if result.best_other is None else result.best_other.score for result in results]
    return NonMatedSearches(np.array(scores, np.float64), _clusters(results))


def _clusters(results: Sequence[ProbeResult]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A number for each identity that is the same in every call: it is taken from the name itself."""
    return np.array([_number(result.identity) for result in results], np.int64)


def _number(identity: str) -> int:
    return int.from_bytes(identity.encode()[:256], "big") % (2**61 - 1)
