"""Flag points: at which score a pair of references is shown to a custodian, by model and version, with the evidence."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.search.identification.candidates import meets_threshold
from services.shared.biometric import ModelProvenance
from services.shared.errors import ConfigurationError


class PointEvidence(BaseModel):
    """What the points were measured on; further keys as the report has them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    reference: str = Field(min_length=1)


class FlagPoints(BaseModel):
    """Raw cosines. They belong to one `model_id`, or to a family of recognisers and the preprocessing that they were
    measured with; no other model is ever compared by them.

    `same_person` and over: two subjects are probably one. `strong`, `near_identical`: the bands above it.
    `duplicate` and over: two images of one subject are probably one picture. Below `unlike`: an image is unlike every
    other of its subject.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str | None = None
    recogniser: str | None = None
    preprocessing: str = "*"
    same_person: float = Field(ge=-1, le=1)
    strong: float = Field(ge=-1, le=1)
    near_identical: float = Field(ge=-1, le=1)
    duplicate: float = Field(ge=-1, le=1)
    unlike: float = Field(ge=-1, le=1)
    version: str = Field(min_length=1, max_length=100)
    evidence: PointEvidence

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.model_id is None) == (self.recogniser is None):
            raise ValueError("name either a model_id or a recogniser")
        if not self.unlike < self.same_person <= self.strong <= self.near_identical:
            raise ValueError("unlike < same_person <= strong <= near_identical is not so")
        if self.duplicate < self.same_person:
            raise ValueError("duplicate has to be same_person at least")
        return self

    def is_for(self, model: ModelProvenance) -> bool:
        if self.model_id is not None:
            return self.model_id == model.model_id
        return fnmatchcase(model.recogniser, self.recogniser or "") and fnmatchcase(
            model.preprocessing_version, self.preprocessing
        )

    def band(self, score: float) -> str:
        """Of a pair that is flagged."""
        if meets_threshold(score, self.near_identical):
            return "near_identical"
        return "strong" if meets_threshold(score, self.strong) else "probable"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int = Field(ge=1, le=1)
    flag_points: list[FlagPoints]


def parse_flag_points(text: str | bytes, where: str) -> tuple[FlagPoints, ...]:
    """Read the JSON form; ConfigurationError names the place that is wrong."""
    try:
        return tuple(_Document.model_validate_json(text).flag_points)
    except ValidationError as error:
        raise ConfigurationError(
            f"{where}: {error}", advice="Mend the named place; docs/gallery-life.md describes the file."
        ) from error


class FlagPointsFile:
    """The points in force: the administrator's file before the packaged ones, read again when it changes."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises ConfigurationError."""
        self._path = path
        self._lock = Lock()
        self._stamp: tuple[int, int] | None = None
        self._own: tuple[FlagPoints, ...] = ()
        packaged = resources.files("services.search").joinpath("neighbours/flag_points.json").read_bytes()
        self._packaged = parse_flag_points(packaged, "packaged flag_points.json")
        self._current()

    def find(self, model: ModelProvenance) -> FlagPoints | None:
        """None where none were ever set for the model: then nothing is flagged. Raises ConfigurationError."""
        return next((points for points in (*self._current(), *self._packaged) if points.is_for(model)), None)

    def _current(self) -> tuple[FlagPoints, ...]:
        if self._path is None:
            return ()
        with self._lock:
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if stamp != self._stamp:
                    self._own, self._stamp = parse_flag_points(self._path.read_bytes(), str(self._path)), stamp
            except OSError as error:
                raise ConfigurationError(
                    f"flag points cannot be read: {error}", advice="Put the file back or unset the setting."
                ) from error
            return self._own
