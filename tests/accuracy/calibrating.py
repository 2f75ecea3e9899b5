"""What thresholds by quality and rates carried to other galleries are worth, on people that they were not set on.

Both are judged on the searches of an evaluation (`likeness evaluate --degrade`): one threshold for every probe beside
one for each band of quality, set on one half of the people and used on the other; and the FPIR of small galleries,
carried to the whole one, beside the FPIR that the whole one has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.local.evaluation.calibration import BAND_STARTS, calibration_document
from services.local.evaluation.labelled_set import LabelledSet
from services.local.evaluation.metrics import Floats
from services.local.evaluation.records import Run
from tests.accuracy.paired import run_from_json
from tests.accuracy.quality_data import QualityData

WISHED = (0.01, 0.02, 0.05, 0.1)
_HALVINGS = 8
_DRAWS = 40
_PARTS = (100, 10, 3)
_SCORES = (0.3, 0.33, 0.36, 0.4)
_MIN_EXPECTED = 3.0
PACKAGED_REFERENCE = (
    "The development faces (press and official portraits), as they are and under seven degradations made by computer: "
    "neither this gallery nor CCTV. `likeness evaluate` measures your own."
)

Bools = npt.NDArray[np.bool_]


def runs_of(evaluation: Mapping[str, Any]) -> list[Run]:
    """Every condition of evaluation.json; the stills that were searched with their own subject left out are with the
    first, as they were measured."""
    return [
        Run(
            condition,
            run_from_json(condition, searches).probes,
            run_from_json(condition, evaluation["leave_one_out"][condition]).probes,
        )
        for condition, searches in evaluation["searches"].items()
    ]


def write_packaged(evaluation: Mapping[str, Any], path: Path) -> None:
    """Put what the development faces say of scores into the file that search is delivered with."""
    facts = {"measured_on": evaluation["measured_on"], "manifest_sha256": evaluation["manifest_sha256"]}
    model_id, enrolled = evaluation["model"]["model_id"], evaluation["enrolled"]
    found = calibration_document(runs_of(evaluation), model_id=model_id, watchlist="*", enrolled=enrolled, facts=facts)
    found["evidence"]["reference"] = PACKAGED_REFERENCE
    found["version"] = found["version"].replace("evaluate-", "development-faces-", 1)
    document = json.loads(path.read_text("utf-8"))
    document["calibrations"] = [found]
    text = json.dumps(document, indent=1, ensure_ascii=False)
    path.write_text(_rows_on_lines(text) + "\n", encoding="utf-8")


def report(evaluation: Mapping[str, Any], labelled: LabelledSet, data: QualityData) -> str:
    searches = _Searches(runs_of(evaluation))
    return "\n".join([*_threshold_table(searches), "", *_gallery_table(labelled, data)])


class _Searches:
    """Mated searches of every condition that have a quality: own score (-1 where missed), best other, whose."""

    def __init__(self, runs: Sequence[Run]) -> None:
        found = [one for run in runs for one in run.probes if one.is_mated and one.quality is not None]
        self.own = np.array([-1.0 if one.score is None else one.score for one in found])
        self.other = np.array([-1.0 if one.best_other is None else one.best_other.score for one in found])
        self.band = np.searchsorted(BAND_STARTS, [one.quality or 0.0 for one in found], side="right") - 1
        self.who = np.array([one.identity for one in found])

    def halves(self) -> Iterator[tuple[Bools, Bools]]:
        people = np.unique(self.who)
        for seed in range(_HALVINGS):
            order = np.random.default_rng(seed).permutation(len(people))
            half = np.isin(self.who, people[order[: len(people) // 2]])
            yield half, ~half
            yield ~half, half


def _threshold_table(searches: _Searches) -> list[str]:
    lines = [
        f"{len(searches.own)} searches of {len(np.unique(searches.who))} people; thresholds set on the other half",
        "",
        "| wished FPIR | one threshold: TPIR | FPIR | by quality: TPIR | FPIR | difference in TPIR, 95 % |",
        "|---|---|---|---|---|---|",
    ]
    for wished in WISHED:
        one = [_rates(searches, used, _single(searches, made, wished)) for made, used in searches.halves()]
        more = [_rates(searches, used, _by_band(searches, made, wished)) for made, used in searches.halves()]
        tpir, fpir = np.mean(one, axis=0)
        tpir_by, fpir_by = np.mean(more, axis=0)
        low, high = _interval(searches, wished)
        lines.append(
            f"| {wished:g} | {tpir:.4f} | {fpir:.4f} | {tpir_by:.4f} | {fpir_by:.4f} "
            f"| {tpir_by - tpir:+.4f} [{low:+.4f}, {high:+.4f}] |"
        )
    return lines


def _single(searches: _Searches, made: Bools, wished: float) -> Floats:
    return np.full(len(BAND_STARTS), _threshold(searches.other[made], wished))


def _by_band(searches: _Searches, made: Bools, wished: float) -> Floats:
    """One threshold a band; the common one where a band's searches do not carry the rate."""
    found = _single(searches, made, wished)
    for band in range(len(BAND_STARTS)):
        scores = searches.other[made & (searches.band == band)]
        if len(scores) * wished >= _MIN_EXPECTED:
            found[band] = _threshold(scores, wished)
    return found


def _threshold(scores: Floats, wished: float) -> float:
    falling = np.sort(scores)[::-1]
    return float(np.nextafter(falling[int(len(falling) * wished)], np.inf))


def _rates(searches: _Searches, used: Bools, thresholds: Floats) -> tuple[float, float]:
    limits = thresholds[searches.band[used]]
    return float((searches.own[used] >= limits).mean()), float((searches.other[used] >= limits).mean())


def _interval(searches: _Searches, wished: float) -> tuple[float, float]:
    """Of the difference, people of the half that is judged drawn anew; thresholds as the other half set them."""
    generator = np.random.default_rng(20260101)
    differences = []
    for made, used in searches.halves():
        single, banded = _single(searches, made, wished), _by_band(searches, made, wished)
        bands = searches.band[used]
        gain = (searches.own[used] >= banded[bands]).astype(float) - (searches.own[used] >= single[bands])
        names, index = np.unique(searches.who[used], return_inverse=True)
        for _ in range(200):
            weights = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))[index]
            differences.append(float(weights @ gain) / float(weights.sum()))
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def _gallery_table(labelled: LabelledSet, data: QualityData) -> list[str]:
    """Enrolled stills searched among parts of one another; each part's FPIR carried to the whole."""
    stills = [still for still in labelled.enrolled if data.references[still.name].any()]
    vectors = np.stack([data.references[still.name] for still in stills])
    who = np.array([still.identity for still in stills])
    scores = vectors @ vectors.T
    scores[who[:, None] == who[None, :]] = -1
    best = scores.max(axis=1)
    lines = [
        f"| score | FPIR with {len(stills)} enrolled | "
        + " | ".join(f"carried from {len(stills) // part}" for part in _PARTS)
        + " |",
        "|---" * (2 + len(_PARTS)) + "|",
    ]
    generator = np.random.default_rng(1)
    for score in _SCORES:
        cells = [_carried(scores, score, part, generator) for part in _PARTS]
        lines.append(
            f"| {score:g} | {(best >= score).mean():.4f} | " + " | ".join(f"{one:.4f}" for one in cells) + " |"
        )
    return lines


def _carried(scores: npt.NDArray[np.float32], score: float, part: int, generator: np.random.Generator) -> float:
    count = len(scores) // part
    shares = [
        (scores[:, generator.choice(len(scores), count, replace=False)].max(axis=1) >= score).mean()
        for _ in range(_DRAWS)
    ]
    return float(1 - (1 - np.mean(shares)) ** (len(scores) / count))


def _rows_on_lines(text: str) -> str:
    """A row of the table on a line of the file."""
    lines: list[str] = []
    for line in text.splitlines():
        inner = line.strip()
        if lines and not lines[-1].rstrip().endswith(("}", "},")) and '"score": ' in lines[-1]:
            lines[-1] += inner if inner.startswith("}") else f" {inner}"
        elif inner.startswith('"score": '):
            lines[-1] += inner
        else:
            lines.append(line)
    return "\n".join(lines)
