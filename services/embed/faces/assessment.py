"""What a face's quality means: its grade, the error rate measured at that quality, and what would make it better."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

from pydantic import BaseModel

from services.shared.biometric import Assessment, MeasuredRate, Quality

_GOOD_ENOUGH = 60.0  # of a component; nothing is advised above it
# What is only a hint speaks later, so that it is seldom wrong.
_HINTS = {"visibility": 15.0, "eyes_open": 15.0, "mouth_closed": 15.0, "expression": 15.0, "background": 15.0}
_MOST_ADVICE = 3

# In the order in which a photographer should mend things.
_ADVICE: Mapping[str, str] = {
    "inter_eye_distance": "Come closer or use a picture with more pixels of the face.",
    "yaw": "The face is turned to a side: have it look straight into the camera.",
    "pitch": "The head is tilted up or down: have it look straight into the camera.",
    "visibility": "Eyes or mouth seem to be covered: take off dark glasses, mask, scarf, and hands from the face.",
    "illumination": "The face is too dark, too bright or lit from one side: light it evenly from the front.",
    "sharpness": "The face is not sharp: focus on the eyes and hold still.",
    "compression": "Compression has eaten detail: send the original file, not a copy from a messenger.",
    "contrast": "The face is flat: avoid haze, glare and backlight.",
    "eyes_open": "The eyes seem to be shut or hidden.",
    "mouth_closed": "The mouth seems to be open.",
    "expression": "Have the face at rest, without a smile.",
    "background": "Use an even, light background.",
}
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
    return Assessment(band.grade, rate, advice(quality.components, _FOR_PROBES))


def advice(components: Mapping[str, float], about: tuple[str, ...] = tuple(_ADVICE)) -> tuple[str, ...]:
    """The worst components in words, at most three; none where everything is good enough."""
    poor = [name for name in about if components.get(name, 100.0) < _HINTS.get(name, _GOOD_ENOUGH)]
    worst = sorted(poor, key=lambda name: components[name])[:_MOST_ADVICE]
    return tuple(_ADVICE[name] for name in _ADVICE if name in worst)
