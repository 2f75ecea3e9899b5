"""The contact sheet as one HTML file that needs nothing else: pictures are inside, there is no script."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image

from services.local.demo.plan import SUBJECTS, Expectation
from services.local.demo.results import (
    INTELLIGENCE_ONLY,
    NOTICE,
    PROMISE_MS,
    STAGES,
    DemoResult,
    ProbeResult,
    ShownCandidate,
    synthetic_statement,
)
from services.local.demo.sheet_images import placeholder_image, probe_image, reference_image

# Twice the size at which they are shown, for sharp screens.
_PROBE_PX = (560, 480)
_CANDIDATE_PX = 260


def write_html(result: DemoResult, pictures: Path, target: Path) -> None:
    """Write the sheet; everything that comes from outside is escaped."""
    templates = Environment(loader=PackageLoader("services.local.demo", "."), autoescape=True)
    references = {subject.subject_id: _uri(reference_image(subject, pictures, _CANDIDATE_PX)) for subject in SUBJECTS}
    page = templates.get_template("sheet.html.j2").render(
        result=result,
        rows=[_row(entry, pictures) for entry in result.probes],
        references=references,
        about={subject.subject_id: subject.about for subject in SUBJECTS},
        placeholder=_uri(placeholder_image(_CANDIDATE_PX)),
        stages=STAGES,
        promise_s=PROMISE_MS / 1000,
        required=[entry for entry in result.probes if entry.probe.expectation is Expectation.RANK_ONE],
        statements=(synthetic_statement(result), NOTICE, INTELLIGENCE_ONLY),
    )
    target.write_text(page, "utf-8")


def _row(entry: ProbeResult, pictures: Path) -> dict[str, Any]:
    return {
        "entry": entry,
        "picture": _uri(probe_image(entry, pictures, *_PROBE_PX)),
        "tone": tone(entry),
        "is_hard": entry.probe.expectation is Expectation.HARD,
        "is_enrolled": entry.probe.expectation is not Expectation.NOT_ENROLLED,
    }


def tone(entry: ProbeResult) -> str:
    """`good`, `bad`, or `plain` where there is nothing to pass or fail."""
    if not entry.is_as_expected:
        return "bad"
    right: ShownCandidate | None = entry.right
    return "good" if right is not None and right.rank == 1 else "plain"


def _uri(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=86, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
