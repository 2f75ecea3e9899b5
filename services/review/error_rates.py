"""What was measured of probes of a quality: read from the file that `likeness evaluate` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from services.shared.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """Hits of trials with the 95 % interval of their share."""

    hits: int
    trials: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.hits} of {self.trials} (95 per cent interval {self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class BandRates:
    """Of probes whose unified quality lies in a band: how many mated searches had the subject first, and how many
    searches without the subject had somebody over the evaluation's threshold (None where too few were made)."""

    band: str
    model_id: str
    searches: int
    enrolled: int
    measured_on: str
    first: MeasuredRate
    false_candidates: MeasuredRate | None


class ErrorRates:
    """The rates of one evaluation, by band of unified quality. Empty when none was made."""

    def __init__(self, bands: Mapping[str, BandRates], model_id: str) -> None:
        self._bands = dict(bands)
        self._model_id = model_id

    @classmethod
    def none(cls) -> ErrorRates:
        return cls({}, "")

    @classmethod
    def read(cls, path: Path) -> ErrorRates:
        """Raises ConfigurationError when the file is not an evaluation."""
        try:
            document = orjson.loads(path.read_bytes())
            model_id = str(document["model"]["model_id"])
            of = (model_id, int(document["enrolled"]), str(document["measured_on"]))
            slices = document["summaries"][0]["slices"]["quality"]
            return cls({found.band: found for entry in slices if (found := _band(entry, of))}, model_id)
        except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{path} is no evaluation that `likeness evaluate` wrote: {error}",
                advice="Point LIKENESS_REVIEW__EVALUATION_PATH at its evaluation.json, or leave it out.",
            ) from error

    def at(self, unified_quality: float, model_id: str) -> BandRates | None:
        """The rates for a probe of this quality with this model; None where they were not measured."""
        if model_id != self._model_id:
            return None
        return next((found for band, found in self._bands.items() if _contains(band, unified_quality)), None)


def _band(entry: Mapping[str, Any], of: tuple[str, int, str]) -> BandRates | None:
    first = _rate(entry["rank_1"])
    if first is None:
        return None
    model_id, enrolled, measured_on = of
    others = _rate(entry.get("fpir"))
    return BandRates(str(entry["name"]), model_id, int(entry["searches"]), enrolled, measured_on, first, others)


def _rate(entry: Mapping[str, Any] | None) -> MeasuredRate | None:
    if entry is None or not entry["trials"]:
        return None
    return MeasuredRate(int(entry["hits"]), int(entry["trials"]), float(entry["low"]), float(entry["high"]))


def _contains(band: str, value: float) -> bool:
    """Bands are named "under 30", "30 to 50", "70 and over"."""
    words = band.split()
    if words[0] == "under":
        return value < float(words[1])
    if words[-1] == "over":
        return value >= float(words[0])
    return len(words) == 3 and words[1] == "to" and float(words[0]) <= value < float(words[2])
