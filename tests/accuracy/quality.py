"""The unified quality score: fitted to predict false non-match, and shown to do so on people it was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from services.embed.faces.quality import WEIGHTS
from services.local.evaluation.discard import (
    WISHED_FPIR,
    DiscardCurve,
    QualityBand,
    discard_curve,
    draw_discard,
    quality_bands,
)
from services.local.evaluation.labelled_set import LabelledSet
from services.local.evaluation.metrics import wilson
from tests.accuracy.quality_data import AS_IT_IS, CONDITIONS, Measured, QualityData

Floats = npt.NDArray[np.float64]
TOLD_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
EDGES = (0, 30, 40, 50, 60, 70, 100)
SUITABLE, WITH_CAUTION = 0.10, 0.40  # the most that may miss in a band of that grade
HALVINGS = 8
# A person with a hand or a beard, and a background, say nothing of the score; the fit would only find noise in them.
LEFT_OUT = ("background", "expression", "mouth_closed", "roll")
# The development faces hardly turn and are seldom small without being blocky: these keep a small weight all the same.
LEAST = {"inter_eye_distance": 0.15, "yaw": 0.15}
HAND_MADE = {
    "inter_eye_distance": 0.25,
    "sharpness": 0.2,
    "yaw": 0.2,
    "pitch": 0.1,
    "roll": 0.025,
    "illumination": 0.1,
    "contrast": 0.05,
    "detection": 0.075,
}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Log components (rows are mated searches in which a face was found), which missed, and whose they are."""

    names: tuple[str, ...]
    logs: Floats
    is_miss: npt.NDArray[np.bool_]
    identities: npt.NDArray[np.str_]
    threshold: float

    def quality(self, weights: dict[str, float]) -> Floats:
        """The unified score as services/embed/faces/quality.py has it."""
        return np.asarray(100 * np.exp(self.logs @ np.array([weights.get(name, 0.0) for name in self.names])))


def threshold_of(labelled: LabelledSet, data: QualityData) -> float:
    """At FPIR 1 %: every enrolled still and every probe as it is, its own subject left out."""
    gallery = np.stack([data.references[still.name] for still in labelled.enrolled])
    who = np.array([still.identity for still in labelled.enrolled])
    scores = gallery @ gallery.T
    scores[who[:, None] == who] = -1
    probes = [item.best_other for item in data.measured.values() if item.condition == AS_IT_IS]
    best = np.sort(np.concatenate([scores.max(axis=1), [score for score in probes if score is not None]]))
    return float(np.nextafter(best[-1 - math.floor(len(best) * WISHED_FPIR)], np.inf))


def table_of(labelled: LabelledSet, data: QualityData) -> Table:
    threshold = threshold_of(labelled, data)
    found = [item for item in data.measured.values() if item.own is not None]
    names = tuple(found[0].components)
    logs = np.log(np.array([[max(item.components[name], 1.0) for name in names] for item in found]) / 100)
    is_miss = np.array([item.own is None or item.own < threshold for item in found])
    return Table(names, logs, is_miss, np.array([item.identity for item in found]), threshold)


def fit(table: Table, rows: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Weights, none negative and 1 in all, of a logistic regression of misses on the logarithms of the components."""
    from scipy.optimize import minimize  # noqa: PLC0415 - the extra `evaluate`

    logs, missed = table.logs[rows], table.is_miss[rows].astype(np.float64)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        odds = parameters[0] - logs @ parameters[1:]
        error = 1 / (1 + np.exp(-odds)) - missed
        penalty = 2.0 * float((parameters[1:] ** 2).sum())
        gradient = np.concatenate([[error.sum()], -logs.T @ error + 4.0 * parameters[1:]])
        return float((np.logaddexp(0, odds) - missed * odds).sum()) + penalty, gradient

    bounds = [(None, None), *((0, 0) if name in LEFT_OUT else (LEAST.get(name, 0), None) for name in table.names)]
    start = np.concatenate([[-3.0], np.full(len(table.names), 0.5)])
    slopes = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x[1:]
    shares = slopes / slopes.sum()
    kept = {name: round(float(share), 3) for name, share in zip(table.names, shares, strict=True) if share >= 0.01}
    total = sum(kept.values())
    return {name: share / total for name, share in kept.items()}


def halves(identities: npt.NDArray[np.str_]) -> Iterator[npt.NDArray[np.bool_]]:
    """Rows of one half of the people, then of the other, over and over."""
    people = np.unique(identities)
    for seed in range(HALVINGS):
        order = np.random.default_rng(seed).permutation(len(people))
        half = np.isin(identities, people[order[: len(people) // 2]])
        yield half
        yield ~half


@dataclass(frozen=True, slots=True)
class QualityStudy:
    """What the fit came to. Curves are means over the halves that the fit did not see."""

    weights: dict[str, float]
    curves: tuple[DiscardCurve, ...]
    bands: tuple[QualityBand, ...]
    threshold: float


def study(table: Table) -> QualityStudy:
    kinds: dict[str, list[DiscardCurve]] = {}
    for judged in halves(table.identities):
        fitted = fit(table, ~judged)
        scores = {
            "fitted on other people": fitted,
            "weights set by hand (before)": HAND_MADE,
            "sharpness alone": {"sharpness": 1.0},
            "distance between the eyes alone": {"inter_eye_distance": 1.0},
        }
        for title, weights in scores.items():
            curve = discard_curve(title, table.quality(weights)[judged], table.is_miss[judged])
            kinds.setdefault(title, []).append(curve)
    curves = tuple(_mean(curves, len(table.is_miss), int(table.is_miss.sum())) for curves in kinds.values())
    # The bands are of the weights that are shipped, each search judged by weights from other people: the first halving.
    first = next(halves(table.identities))
    crossed = np.where(first, table.quality(fit(table, ~first)), table.quality(fit(table, first)))
    bands = quality_bands(crossed, table.is_miss, EDGES)
    everybody = np.ones(len(table.is_miss), np.bool_)
    return QualityStudy(fit(table, everybody), curves, tuple(bands), table.threshold)


def _mean(curves: Sequence[DiscardCurve], searches: int, misses: int) -> DiscardCurve:
    values = np.mean([curve.fnmr for curve in curves], axis=0)
    return DiscardCurve(curves[0].title, curves[0].shares, tuple(float(value) for value in values), searches, misses)


def write_bands(found: QualityStudy, path: Path) -> None:
    """The table that embed grades by. A better band never has a worse grade than a poorer one."""
    worst, rows = "suitable", []
    order = ("suitable", "with_caution", "unsuitable")
    for band in found.bands:
        share = band.missed.estimate
        grade = order[(share > SUITABLE) + (share > WITH_CAUTION)]
        worst = max(worst, grade, key=order.index)
        rows.append(
            {
                "from_quality": band.low,
                "grade": worst,
                "misses": band.missed.hits,
                "searches": band.missed.trials,
                "low": round(band.missed.low, 4),
                "high": round(band.missed.high, 4),
            }
        )
    basis = "development faces and worse versions of them"
    document = {"basis": basis, "threshold_fpir": WISHED_FPIR, "bands": rows}
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def report(found: QualityStudy, table: Table, measured: Sequence[Measured], figure: Path) -> str:
    """Markdown for docs/accuracy.md, and the figure."""
    draw_discard(found.curves, figure)
    lines = [f"Threshold {found.threshold:.4f} (FPIR 1 %). Weights: {found.weights}", ""]
    lines += ["| condition | mated searches | no face found | missed |", "|---|---|---|---|"]
    for name in CONDITIONS:
        of_it = [item for item in measured if item.condition == name]
        owns = [item.own for item in of_it if item.own is not None]
        rate = wilson(sum(own < found.threshold for own in owns), len(owns))
        missed = f"{rate.estimate:.3f} [{rate.low:.3f}, {rate.high:.3f}]"
        lines.append(f"| {name} | {len(of_it)} | {len(of_it) - len(owns)} | {missed} |")
    lines += ["", "| left out | " + " | ".join(curve.title for curve in found.curves) + " |"]
    lines += ["|---" * (1 + len(found.curves)) + "|"]
    for share in TOLD_SHARES:
        values = " | ".join(f"{curve.at(share):.3f}" for curve in found.curves)
        lines.append(f"| {share:.0%} | {values} |")
    lines += ["", "| unified quality | mated searches | missed | 95 % interval |", "|---|---|---|---|"]
    for band in found.bands:
        rate = band.missed
        lines.append(
            f"| {band.low:g} to {band.high:g} | {rate.trials} | {rate.hits} ({rate.estimate:.1%}) "
            f"| {rate.low:.1%} to {rate.high:.1%} |"
        )
    shipped = discard_curve("shipped", table.quality(WEIGHTS), table.is_miss)
    lines += ["", f"With the weights that are shipped: FNMR {shipped.at(0):.3f}, {shipped.at(0.2):.3f} without a fifth"]
    return "\n".join(lines)
