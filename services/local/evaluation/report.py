"""The report of an evaluation: one HTML file with its pictures inside, for use in the unit only."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import cv2
import jinja2

from services.local.evaluation.evaluation import Evaluation, worst_false_matches, worst_false_non_matches
from services.local.evaluation.metrics import TpirAtFpir
from services.local.evaluation.records import ProbeResult

_CASES = 12
_THUMBNAIL_PX = 340


@dataclass(frozen=True, slots=True)
class Picture:
    data: str
    caption: str


@dataclass(frozen=True, slots=True)
class Case:
    """Pictures side by side and what happened."""

    pictures: tuple[Picture, ...]
    text: str


def write_report(
    evaluation: Evaluation, plots: Mapping[str, Path], folder: Path, proposal: TpirAtFpir | None = None
) -> Path:
    """Write `report.html`. It holds pictures of people: it is not for publication."""
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
        resources.files("services.local.evaluation").joinpath("report.html.j2").read_text("utf-8")
    )
    cases = _Cases(evaluation)
    text = template.render(
        model=evaluation.model,
        gallery_name=evaluation.gallery_name,
        measured_on=evaluation.measured_on,
        manifest_sha256=evaluation.labelled.manifest_sha256,
        enrolled=len(evaluation.gallery.enrolled),
        refused=evaluation.gallery.refused,
        main=evaluation.summaries[0],
        summaries=evaluation.summaries,
        discard=evaluation.discard,
        plots={title: _data_url(path.read_bytes(), "image/png") for title, path in plots.items()},
        proposal=_proposal_text(proposal, len(evaluation.gallery.enrolled)),
        non_matches=[cases.non_match(result) for result in worst_false_non_matches(evaluation.main, _CASES)],
        matches=[cases.match(result) for result in worst_false_matches(evaluation.main, _CASES)],
    )
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


class _Cases:
    """Makes cases out of search results."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._paths = {still.name: still.path for still in evaluation.labelled.stills}
        self._stills_of = evaluation.gallery.stills_of

    def non_match(self, result: ProbeResult) -> Case:
        own = [self._picture(still.name, "enrolled") for still in self._stills_of.get(result.identity, ())[:1]]
        pictures = [self._picture(result.name, "probe"), *(own or [Picture("", "its subject is not enrolled")])]
        other = result.best_other
        if other is not None:
            pictures.append(self._picture(other.still, f"best of anybody else, {other.score:.3f}"))
        if result.failure:
            text = f"Not acquired: {result.failure.replace('_', ' ')}."
        elif result.score is None:
            text = "Its subject is not on the list."
        else:
            text = f"Its subject is at rank {result.rank} with a score of {result.score:.3f}."
        return Case(tuple(pictures), f"{text} {_conditions(result)}")

    def match(self, result: ProbeResult) -> Case:
        other = result.best_other
        pictures = [self._picture(result.name, "searched")]
        if other is not None:
            pictures.append(self._picture(other.still, "another subject"))
        score = "" if other is None else f"Score {other.score:.3f} between different subjects."
        return Case((*pictures, Picture("", "")), f"{score} {_conditions(result)}")

    def _picture(self, name: str, caption: str) -> Picture:
        path = self._paths.get(name)
        return Picture(_thumbnail(path) if path else "", f"{caption}: {name}" if name else caption)


def _conditions(result: ProbeResult) -> str:
    if result.quality is None or result.inter_eye_px is None:
        return ""
    return f"Quality {result.quality:.0f} of 100, {result.inter_eye_px:.0f} px between the eyes."


def _proposal_text(point: TpirAtFpir | None, enrolled: int) -> str:
    if point is None or point.threshold is None or point.fpir is None or point.tpir is None:
        return ""
    return (
        f"Threshold {point.threshold:.4f} for a wished FPIR of {point.wished_fpir:.2%} with {enrolled} references: "
        f"measured FPIR {point.fpir.estimate:.2%} ({point.fpir.low:.2%} to {point.fpir.high:.2%}, "
        f"{point.fpir.hits} of {point.fpir.trials} searches), "
        f"TPIR {point.tpir.estimate:.1%} ({point.tpir.low:.1%} to {point.tpir.high:.1%})."
    )


def _thumbnail(path: Path) -> str:
    """A small JPEG as a data URL; empty where OpenCV does not decode the file."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        return ""
    factor = min(1.0, _THUMBNAIL_PX / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _done, encoded = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, 85))
    return _data_url(encoded.tobytes(), "image/jpeg")


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
