"""The contact sheet: one HTML file with a section a person, pictures inside, that needs nothing else."""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path

import jinja2

from services.local.cluster.people import Findings
from services.local.cluster.work import FoundFace

# What a browser still shows without effort; people.json has everything.
_MOST_PEOPLE, _MOST_FACES, _MOST_PATHS, _MOST_POOR = 400, 20, 60, 60


def write_sheet(
    findings: Findings, path: Path, *, folder: str, case: str, model_id: str, threshold: float, at: str
) -> None:
    """Names of files are text of an unknown origin: they are escaped, never followed."""
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
        resources.files("services.local.cluster").joinpath("sheet.html.j2").read_text("utf-8")
    )
    text = template.render(
        findings=findings,
        folder=folder,
        case=case,
        model_id=model_id,
        threshold=threshold,
        made_at=at,
        faces=sum(len(person.faces) for person in findings.people) + len(findings.poor),
        picture=_picture,
        most_people=_MOST_PEOPLE,
        most_faces=_MOST_FACES,
        most_paths=_MOST_PATHS,
        most_poor=_MOST_POOR,
    )
    path.write_text(text, encoding="utf-8")


def _picture(face: FoundFace) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(face.chip).decode()}"
