"""What a face's quality means: its grade, the error rate measured at that quality, and what would make it better."""

from __future__ import annotations

from functools import cache
from importlib import resources

from pydantic import BaseModel

from services.shared.biometric import Assessment, MeasuredRate, Quality
from services.shared.capture_advice import capture_advice

# What an operator with a probe can still do something about: choose another frame, ask for the original.
_FOR_PROBES = ("inter_eye_distance", "yaw", "pitch", "visibility", "illumination", "sharpness", "compression")


class Band(BaseModel):
    """Probes from this unified quality on, and how many of them missed their own subject."""

    from_quality: float
    grade: str
    misses: int
    searches: int
    low: float
    high: float


class Bands(BaseModel):
    """Bands in falling order, and what they were measured on."""

    basis: str
    threshold_fpir: float
    bands: tuple[Band, ...]


@cache
def bands() -> Bands:
    """The table that was measured last; `python -m tests.accuracy quality` writes it."""
    file = resources.files("services.embed.faces").joinpath("quality_bands.json")
    return Bands.model_validate_json(file.read_text("utf-8"))


def assess(quality: Quality) -> Assessment:
    """The grade of a probe of this quality: `suitable`, `with_caution` or `unsuitable`."""
    table = bands()
    band = next((band for band in table.bands if quality.unified >= band.from_quality), table.bands[-1])
    rate = MeasuredRate(
        misses=band.misses,
        searches=band.searches,
        low=band.low,
        high=band.high,
        threshold_fpir=table.threshold_fpir,
        basis=table.basis,
    )
    return Assessment(band.grade, rate, capture_advice(quality.components, _FOR_PROBES))
