"""A contact sheet of a film: when each track is seen, and its best frames. One HTML file that needs nothing else."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("services.search.film", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_NARROWEST = 0.25  # of the line of time in per cent, so that a moment can be seen


def contact_sheet(film: Mapping[str, Any], name: str) -> str:
    """HTML from the answer of `GET /v1/films/{film_id}?chips=true`; `name` is the file's, shown as inert text."""
    duration_s = max(float(film["film"].get("duration_s") or 0.0), 0.04)
    tracks = [
        {
            **track,
            "bars": [_bar(span["from_s"], span["until_s"], duration_s) for span in track["appearances"]],
            "stills": [{**still, "chip": _data_uri(still["chip_jpeg_base64"])} for still in track["stills"]],
        }
        for track in film["tracks"]
    ]
    template = _ENVIRONMENT.get_template("contact_sheet.html.j2")
    marks = [{"left": 100 * part / 6, "at": clock(duration_s * part / 6)} for part in range(7)]
    return template.render(film=film, name=name, tracks=tracks, marks=marks, clock=clock)


def _bar(from_s: float, until_s: float, duration_s: float) -> dict[str, str]:
    left = 100 * min(max(from_s / duration_s, 0.0), 1.0)
    width = max(100 * (until_s - from_s) / duration_s, _NARROWEST)
    return {"left": f"{min(left, 100 - _NARROWEST):.2f}", "width": f"{min(width, 100 - left):.2f}"}


def _data_uri(jpeg_base64: str) -> str:
    """Decoded and encoded again, so that nothing but base64 can stand in the attribute."""
    return f"data:image/jpeg;base64,{b64encode(b64decode(jpeg_base64, validate=True)).decode()}"


def clock(seconds: float) -> str:
    """Hours, minutes, seconds and tenths."""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
