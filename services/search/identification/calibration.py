"""What a score is worth: how often searches for people who are not enrolled had somebody at it, measured.

A calibration is made by `likeness evaluate` from the real scores of non-mated searches, by quality of the probe, with
N references enrolled. It says an FPIR (the share of non-mated searches with anybody at a score or over it) and its 95 %
interval. It never says how probable it is that a candidate is the right one: that depends on who is searched for.

Another gallery has another N. With one chance p in every comparison FPIR(N) = 1 - (1 - p)^N, so

    FPIR(N) = 1 - (1 - FPIR(M))^(N / M)

where M were enrolled in the measurement (docs/accuracy.md has how that was tested). It is not carried beyond
LARGEST_FACTOR: there, and wherever else nothing was measured, there is no figure and the reason why.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# How many times as many references as were measured with; up to that the rule was tested.
LARGEST_FACTOR = 10.0
# Searches of one person fail together: with fewer people than this a band says nothing.
MIN_PEOPLE = 30
# With fewer false positives than this their share has no worth as an estimate; its upper limit has.
MIN_REACHED = 3


class ScoreRow(BaseModel):
    """Of a band's searches those in which somebody else reached a score, and the 95 % limits of their share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float = Field(ge=-1, le=1)
    reached: int = Field(ge=0)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)


class Band(BaseModel):
    """Non-mated searches with probes from this unified quality on, up to the next band."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_quality: float = Field(ge=0, le=100)
    searches: int = Field(ge=0)
    people: int = Field(ge=0)
    rows: tuple[ScoreRow, ...]

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        for before, after in pairwise(self.rows):
            if after.score <= before.score or after.reached > before.reached:
                raise ValueError("scores rise from row to row, and no more searches reach a higher one")
        if any(row.reached > self.searches or row.low > row.high for row in self.rows):
            raise ValueError("a row counts more than there were, or its limits cross")
        return self


class CalibrationEvidence(BaseModel):
    """What it was measured on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    reference: str = Field(min_length=1)


class Calibration(BaseModel):
    """The FPIR at every score, of one model, for one watchlist (or "*"), with so many enrolled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str = Field(min_length=1)
    watchlist: str = "*"
    version: str = Field(min_length=1, max_length=100)
    enrolled: int = Field(ge=1)
    evidence: CalibrationEvidence
    bands: tuple[Band, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _covers_every_quality(self) -> Self:
        starts = [band.from_quality for band in self.bands]
        if starts[0] != 0 or any(after <= before for before, after in pairwise(starts)):
            raise ValueError("bands rise from quality 0")
        return self

    def at(self, score: float, quality: float, searchable: int) -> ScoreEvidence:
        """The FPIR at a score for a probe of this quality when so many references are compared, or why there is none.

        Between two measured scores the lower one counts, so that the rate is never understated by it.
        """
        band, name = self._band(quality)
        why = self._silence(band, name, score, searchable)
        if why:
            return ScoreEvidence(searchable, name, self.version, why=why)
        row = band.rows[bisect_right([row.score for row in band.rows], score) - 1]
        factor = searchable / self.enrolled
        share = None if row.reached < MIN_REACHED else _carried(row.reached / band.searches, factor)
        return ScoreEvidence(
            searchable,
            name,
            self.version,
            fpir=share,
            low=0.0 if share is None else _carried(row.low, factor),
            high=_carried(row.high, factor),
            reached=row.reached,
            searches=band.searches,
            enrolled=self.enrolled,
        )

    def _silence(self, band: Band, name: str, score: float, searchable: int) -> str:
        """Why nothing is said; empty where something is."""
        if band.people < MIN_PEOPLE or not band.rows:
            return f"{band.people} people were searched at {name}, too few"
        if searchable > self.enrolled * LARGEST_FACTOR:
            return (
                f"it was measured with {self.enrolled:,} enrolled and is carried to at most "
                f"{self.enrolled * LARGEST_FACTOR:,.0f}"
            )
        if score < band.rows[0].score:
            return f"scores under {band.rows[0].score:g} were not counted"
        return ""

    def _band(self, quality: float) -> tuple[Band, str]:
        place = max(0, bisect_right([band.from_quality for band in self.bands], quality) - 1)
        start = self.bands[place].from_quality
        if place + 1 == len(self.bands):
            return self.bands[place], f"quality {start:g} and over"
        return self.bands[place], f"quality {start:g} to {self.bands[place + 1].from_quality:g}"


@dataclass(frozen=True, slots=True)
class ScoreEvidence:
    """What is known of a score. `fpir` is None where it is not known: `why` says so, or too few searches reached it
    for an estimate and only the upper limit holds. Shares in [0, 1]; `low` and `high` are of 95 %."""

    searchable: int
    band: str = ""
    version: str = ""
    fpir: float | None = None
    low: float | None = None
    high: float | None = None
    # In the measurement, with `enrolled` references.
    reached: int = 0
    searches: int = 0
    enrolled: int = 0
    why: str = ""

    def document(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {
            "fpir": _rounded(self.fpir),
            "low": _rounded(self.low),
            "high": _rounded(self.high),
            "says": self.says(),
        }

    def says(self) -> str:
        """In words, with all that it rests on."""
        if self.why:
            of = f", evidence {self.version}" if self.version else ""
            return f"No evidence of the FPIR at this score for N={self.searchable:,}{of}: {self.why}."
        assert self.high is not None  # noqa: S101 - by construction
        if self.fpir is None:
            told = f"FPIR at this score under {_share(self.high)}, no estimate,"
        else:
            told = f"FPIR at this score ≈ {_share(self.fpir)} [{_share(self.low or 0.0)}, {_share(self.high)}]"
        return (
            f"{told} for N={self.searchable:,}, {self.band}: {self.reached} of {self.searches:,} searches for people "
            f"not enrolled had somebody at it, N={self.enrolled:,}, evidence {self.version}."
        )


def no_evidence(searchable: int, why: str) -> ScoreEvidence:
    return ScoreEvidence(searchable, why=why)


def calibrations_document(calibrations: Mapping[str, Calibration], searchable: int) -> list[dict[str, Any]]:
    """Which measurements an answer's rates come from, by watchlist."""
    return [
        {
            "watchlist": watchlist_id,
            "version": calibration.version,
            "enrolled": calibration.enrolled,
            "searchable": searchable,
            "evidence": calibration.evidence.model_dump(exclude_none=True),
        }
        for watchlist_id, calibration in calibrations.items()
    ]


def _carried(share: float, factor: float) -> float:
    """The share for `factor` times as many enrolled."""
    return 1.0 if share >= 1 else -math.expm1(factor * math.log1p(-share))


def _share(value: float) -> str:
    """Two significant digits, never in the form of a percentage."""
    if value >= 0.995:
        return "1.0"
    return f"{value:.2g}" if value >= 1e-4 or value == 0 else f"{value:.1e}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
