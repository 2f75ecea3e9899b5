"""The development faces and hostile files, where the machine has them. They are test data and never committed."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]


def shared_data() -> Path:
    """LIKENESS_SHARED_DATA, or `../shared/data` beside the checkout."""
    return Path(os.environ.get("LIKENESS_SHARED_DATA", _REPOSITORY.parent / "shared" / "data"))


@dataclass(frozen=True, slots=True)
class Still:
    """One labelled still of the development faces. `split` is gallery, probe or distractor."""

    path: Path
    identity: str
    source: str
    split: str


@dataclass(frozen=True)
class DevelopmentFaces:
    """The development faces after their own manifest."""

    root: Path
    stills: tuple[Still, ...]

    @classmethod
    def load(cls, root: Path) -> DevelopmentFaces:
        with (root / "manifest.csv").open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["kind"] == "still"]
        return cls(root, tuple(_still(root, row) for row in rows))

    def split(self, *names: str) -> tuple[Still, ...]:
        return tuple(still for still in self.stills if still.split in names)

    def mated_pairs(self) -> tuple[tuple[Still, Still], ...]:
        """(gallery still, probe still) of the same identity, one pair an identity."""
        probes = {still.identity: still for still in reversed(self.split("probe"))}
        return tuple((still, probes[still.identity]) for still in self.split("gallery") if still.identity in probes)


def _still(root: Path, row: Mapping[str, str]) -> Still:
    return Still(root / row["path"], row["identity"], row["source_repo"], row["split"])


def development_faces() -> DevelopmentFaces:
    """The faces, or a skip that says how to have them."""
    root = shared_data() / "faces"
    if not (root / "manifest.csv").is_file():
        pytest.skip(f"no development faces at {root}; set LIKENESS_SHARED_DATA to the folder that holds faces/")
    return DevelopmentFaces.load(root)


def hostile_files() -> Path:
    """The folder of hostile files, or a skip that says how to have them."""
    root = shared_data() / "hostile"
    if not (root / "manifest.csv").is_file():
        pytest.skip(f"no hostile files at {root}; set LIKENESS_SHARED_DATA to the folder that holds hostile/")
    return root
