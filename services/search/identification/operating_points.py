"""Operating points: the threshold of a model and a watchlist, its version, and the evidence that it was set from."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.search.identification.calibration import Calibration
from services.shared.biometric import ModelProvenance
from services.shared.errors import ConfigurationError

ANY_WATCHLIST = "*"


class Evidence(BaseModel):
    """What a threshold was measured on. Error rates are shares in [0, 1] at this threshold."""

    model_config = ConfigDict(frozen=True, extra="allow")

    # Where the report stands: a document id, a file name, a URL of the force's own.
    reference: str = Field(min_length=1)
    fpir: float | None = Field(default=None, ge=0, le=1)
    fnir: float | None = Field(default=None, ge=0, le=1)
    # References enrolled and searches made in that measurement.
    enrolled: int | None = Field(default=None, ge=1)
    searches: int | None = Field(default=None, ge=1)


class OperatingPoint(BaseModel):
    """`score >= threshold` puts a candidate on the list of a search in identification mode.

    It belongs to one `model_id`; only the packaged default names a family of recognisers instead, and is for that
    reason never evidenced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str | None = None
    recogniser: str | None = None
    watchlist: str = ANY_WATCHLIST
    threshold: float = Field(ge=-1, le=1)
    version: str = Field(min_length=1, max_length=100)
    is_evidenced: bool = True
    evidence: Evidence

    @model_validator(mode="after")
    def _belongs_to_something(self) -> Self:
        if (self.model_id is None) == (self.recogniser is None):
            raise ValueError("name either a model_id or a recogniser")
        if self.recogniser is not None and self.is_evidenced:
            raise ValueError("an evidenced threshold belongs to one model_id")
        return self

    def is_for(self, model: ModelProvenance, watchlist_id: str) -> bool:
        if self.watchlist not in (watchlist_id, ANY_WATCHLIST):
            return False
        if self.model_id is not None:
            return self.model_id == model.model_id
        return fnmatchcase(model.recogniser, self.recogniser or "")


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int = Field(ge=1, le=1)
    operating_points: tuple[OperatingPoint, ...]
    calibrations: tuple[Calibration, ...] = ()


_NOTHING = _Document(format=1, operating_points=())


def parse_operating_points(text: str | bytes, where: str) -> tuple[OperatingPoint, ...]:
    """Read the thresholds of the JSON form; ConfigurationError names the place that is wrong."""
    return _parse(text, where).operating_points


def parse_calibrations(text: str | bytes, where: str) -> tuple[Calibration, ...]:
    """Read what the same file says of scores. Raises ConfigurationError."""
    return _parse(text, where).calibrations


def _parse(text: str | bytes, where: str) -> _Document:
    try:
        document = _Document.model_validate_json(text)
    except ValidationError as error:
        raise ConfigurationError(
            f"{where}: {error}", advice="Make the file again with `likeness evaluate`, or mend the named place."
        ) from error
    points = [(point.model_id, point.recogniser, point.watchlist) for point in document.operating_points]
    calibrations = [(calibration.model_id, calibration.watchlist) for calibration in document.calibrations]
    for keys, what in ((points, "operating points"), (calibrations, "calibrations")):
        if len(set(keys)) < len(keys):
            raise ConfigurationError(
                f"{where}: two {what} for one model and watchlist",
                advice="Keep one for each model and watchlist.",
            )
    return document


class OperatingPoints:
    """The operating points in force: the administrator's file before the packaged default, read again when it changes.

    Within each, a watchlist's own point goes before one for any watchlist.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = Lock()
        self._stamp: tuple[int, int] | None = None
        self._own = _NOTHING
        packaged = resources.files("services.search.identification").joinpath("operating_points.json").read_bytes()
        self._packaged = _parse(packaged, "packaged operating_points.json")

    def find(self, model: ModelProvenance, watchlist_id: str) -> OperatingPoint | None:
        """The point of a model and a watchlist; None where no threshold was ever set. Raises ConfigurationError."""
        for document in (self._current(), self._packaged):
            fitting = [point for point in document.operating_points if point.is_for(model, watchlist_id)]
            if fitting:
                return min(fitting, key=lambda point: point.watchlist == ANY_WATCHLIST)
        return None

    def calibration(self, model: ModelProvenance, watchlist_id: str) -> Calibration | None:
        """What scores of this very model are worth on a watchlist; None where nobody measured it.

        Raises ConfigurationError.
        """
        for document in (self._current(), self._packaged):
            fitting = [
                calibration
                for calibration in document.calibrations
                if calibration.model_id == model.model_id and calibration.watchlist in (watchlist_id, ANY_WATCHLIST)
            ]
            if fitting:
                return min(fitting, key=lambda calibration: calibration.watchlist == ANY_WATCHLIST)
        return None

    def _current(self) -> _Document:
        if self._path is None:
            return _NOTHING
        with self._lock:
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if stamp != self._stamp:
                    self._own = _parse(self._path.read_bytes(), str(self._path))
                    self._stamp = stamp
            except OSError as error:
                raise ConfigurationError(
                    f"operating points cannot be read: {error}", advice="Put the file back or unset the setting."
                ) from error
            return self._own
