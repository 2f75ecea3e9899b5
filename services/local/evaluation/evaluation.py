"""A whole evaluation: enrol, search, measure, write down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import orjson

from services.local.evaluation.degrade import SERIES, Degradation
from services.local.evaluation.discard import DiscardReport, discard_report
from services.local.evaluation.enrolment import EnrolledGallery, enrol_gallery
from services.local.evaluation.labelled_set import LabelledSet
from services.local.evaluation.records import ProbeResult, Run
from services.local.evaluation.searching import Probe, ProbeSearcher
from services.local.evaluation.summary import Summary, plain, summarise
from services.local.evaluation.target import Target
from services.shared.clock import rfc3339
from services.shared.errors import ImageRefused

AS_THEY_ARE = "as they are"


class Progress(Protocol):
    """Is told how far it is."""

    def stage(self, title: str, total: int) -> Callable[[int], None]:
        """A new stage begins; the answer is called with how many more are done."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `leave_one_out` also searches every enrolled still, with its own subject left out."""

    watchlist: str = "custody"
    lawful_basis: str = "pace_1984_s64a"
    purpose: str = "prevention_and_detection"
    is_degrading: bool = False
    leave_one_out: bool = True


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out: the runs (the first with the probes as they are), their figures, and what they rest on."""

    labelled: LabelledSet
    gallery: EnrolledGallery
    runs: tuple[Run, ...]
    summaries: tuple[Summary, ...]
    model: dict[str, Any]
    gallery_name: str
    measured_on: str

    @property
    def main(self) -> Run:
        return self.runs[0]

    @property
    def discard(self) -> DiscardReport | None:
        """What quality knew of misses, over every condition; None where too few missed to tell."""
        return discard_report(self.runs)

    def as_json(self) -> bytes:
        """Figures and every search; no template and no picture."""
        document = {
            "format": 1,
            "measured_on": self.measured_on,
            "manifest_sha256": self.labelled.manifest_sha256,
            "model": self.model,
            "gallery": self.gallery_name,
            "watchlist": self.gallery.watchlist,
            "enrolled": len(self.gallery.enrolled),
            "refused": dict(self.gallery.refused),
            "summaries": [asdict(summary) for summary in self.summaries],
            "error_versus_discard": None if self.discard is None else asdict(self.discard),
            "searches": {run.condition: [result.as_json() for result in run.probes] for run in self.runs},
            "leave_one_out": {run.condition: [result.as_json() for result in run.leave_one_out] for run in self.runs},
        }
        return orjson.dumps(plain(document), option=orjson.OPT_INDENT_2)


def evaluate(target: Target, labelled: LabelledSet, plan: Plan, now: datetime, progress: Progress) -> Evaluation:
    """Enrol and search everything. Raises DependencyUnavailable when the platform does not go along."""
    stills = labelled.enrolled
    gallery = enrol_gallery(target, stills, plan.watchlist, plan.lawful_basis, progress.stage("Enrolling", len(stills)))
    searcher = ProbeSearcher(target, gallery, plan.purpose)
    try:
        runs = tuple(_runs(searcher, labelled, gallery, plan, progress))
    finally:
        searcher.close()
    return Evaluation(
        labelled=labelled,
        gallery=gallery,
        runs=runs,
        summaries=tuple(summarise(run) for run in runs),
        model=searcher.model,
        gallery_name=searcher.gallery_name,
        measured_on=rfc3339(now),
    )


def _runs(
    searcher: ProbeSearcher, labelled: LabelledSet, gallery: EnrolledGallery, plan: Plan, progress: Progress
) -> Iterable[Run]:
    # A subject whose picture was refused was to be found and cannot be: its probes stay mated, and miss.
    identities = {still.identity for still in labelled.enrolled}
    probes = [Probe(s, s.path.read_bytes(), s.identity in identities) for s in labelled.probes]
    found = searcher.search_all(probes, progress.stage("Searching", len(probes)))
    left_out: tuple[ProbeResult, ...] = ()
    if plan.leave_one_out:
        again = [Probe(still, still.path.read_bytes(), is_mated=False) for still in gallery.enrolled]
        left_out = searcher.search_all(again, progress.stage("Searching what is enrolled", len(again)))
    yield Run(AS_THEY_ARE, found, left_out)
    for degradation in SERIES if plan.is_degrading else ():
        worse = [_degraded(probe, result, degradation) for probe, result in zip(probes, found, strict=True)]
        yield Run(degradation.name, searcher.search_all(worse, progress.stage(degradation.name, len(worse))))


def _degraded(probe: Probe, result: ProbeResult, degradation: Degradation) -> Probe:
    """A probe without a face as it is stays as it is: it is missed either way."""
    if probe.image is None or result.inter_eye_px is None:
        return probe
    try:
        return Probe(probe.still, degradation.apply(probe.image, result.inter_eye_px), probe.is_mated)
    except ImageRefused:
        return Probe(probe.still, None, probe.is_mated)


def write_json(evaluation: Evaluation, folder: Path) -> Path:
    path = folder / "evaluation.json"
    path.write_bytes(evaluation.as_json())
    return path


def worst_false_non_matches(run: Run, count: int) -> Sequence[ProbeResult]:
    """Mated searches that missed rank 1 or acquired nothing, then those with the lowest scores."""
    mated = [result for result in run.probes if result.is_mated]
    missed = [result for result in mated if result.rank != 1]
    rest = sorted((result for result in mated if result.rank == 1), key=lambda result: result.score or 0.0)
    missed.sort(key=lambda result: -2.0 if result.score is None else result.score)
    return [*missed, *rest][:count]


def worst_false_matches(run: Run, count: int) -> Sequence[ProbeResult]:
    """The searches in which somebody else scored highest, one a pair of subjects."""
    searches = [result for result in (*run.probes, *run.leave_one_out) if result.best_other is not None]
    searches.sort(key=lambda result: -(result.best_other.score if result.best_other else 0.0))
    chosen: list[ProbeResult] = []
    seen: set[frozenset[str]] = set()
    for result in searches:
        pair = frozenset({result.identity, result.best_other.subject if result.best_other else ""})
        if pair not in seen:
            seen.add(pair)
            chosen.append(result)
    return chosen[:count]
