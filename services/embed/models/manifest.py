"""The model manifest: which networks exist, the hash of each, and where its file comes from."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.shared.errors import ConfigurationError
from services.shared.packages import PackagePin

Sha256 = str
_SHA256 = r"^[0-9a-f]{64}$"


class PackageSource(BaseModel):
    """A member of a published package."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    version: str
    archive: str
    archive_sha256: str = Field(pattern=_SHA256)
    member: str

    @property
    def pin(self) -> PackagePin:
        return PackagePin(self.package, self.version, self.archive, self.archive_sha256)


class ModelEntry(BaseModel):
    """One network. `kind` names the pre- and post-processing that belongs to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    role: Literal["detector", "recogniser"]
    kind: Literal["yunet", "sface", "arcface"]
    # Name of the file in a folder of the administrator.
    file: str
    sha256: Sha256 = Field(pattern=_SHA256)
    licence: str
    # What the network wants to see, for people.
    input: str
    # Length of the template; detectors have none.
    dimension: int = 0
    # Version of the preparation and, when pinned, the hash of what it makes.
    prepared_sha256: Sha256 | None = Field(default=None, pattern=_SHA256)
    source: tuple[PackageSource, ...] = ()

    @property
    def stamp(self) -> str:
        """Name and hash in one: two files of the same name never pass for each other."""
        return f"{self.name}.{self.sha256[:8]}"


class Manifest(BaseModel):
    """Every network that may be named in the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: tuple[ModelEntry, ...]

    def get(self, name: str, role: str) -> ModelEntry:
        """Raises ConfigurationError for a name that is not there or has another role."""
        for entry in self.model:
            if (entry.name, entry.role) == (name, role):
                return entry
        known = ", ".join(entry.name for entry in self.model if entry.role == role)
        raise ConfigurationError(
            f"the manifest has no {role} named {name!r}; it has: {known}",
            advice="Correct LIKENESS_EMBED__MODEL__*, or add the network to the manifest (docs/models.md).",
        )


def load_manifest(path: Path | None = None) -> Manifest:
    """The packaged manifest, with the entries of an administrator's file added or put in the place of their namesakes.

    Raises ConfigurationError that names what is wrong.
    """
    packaged = _parse(resources.files(__package__).joinpath("models.toml").read_text("utf-8"), "packaged models.toml")
    if path is None:
        return packaged
    try:
        added = _parse(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise ConfigurationError(
            f"The model manifest {path} cannot be read: {error.strerror}.",
            advice="Correct --manifest, or LIKENESS_EMBED__MODEL__MANIFEST_PATH of the service.",
        ) from error
    by_name = {entry.name: entry for entry in (*packaged.model, *added.model)}
    return Manifest(model=tuple(by_name.values()))


def _parse(text: str, where: str) -> Manifest:
    try:
        return Manifest.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(f"{where}: {error}", advice="Mend the model manifest (docs/models.md).") from error
