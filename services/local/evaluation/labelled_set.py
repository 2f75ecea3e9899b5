"""A labelled set of stills: a folder and a manifest that says who is on each picture and what it is used for.

The manifest is a CSV file with a header:

| column | meaning |
|---|---|
| `path` | of the picture, relative to the folder |
| `identity` | who it is; any text, the same for the same person |
| `split` | `gallery` and `distractor` are enrolled, `probe` is searched; rows of any other split are left out |
| `kind` | optional; only rows whose kind is `still` or empty are used |
| `source`, or `source_repo` | optional; where the picture comes from |
| any other | a group column where it is asked for, or where its name starts with `group_` |
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.shared.errors import InvalidRequest

ENROLLED_SPLITS = ("gallery", "distractor")
PROBE_SPLIT = "probe"
_REQUIRED = ("path", "identity", "split")
_GROUP_PREFIX = "group_"


@dataclass(frozen=True, slots=True)
class LabelledStill:
    """One picture. `name` is its path in the manifest, `groups` the values of the group columns."""

    name: str
    path: Path
    identity: str
    split: str
    source: str
    groups: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """The stills of a manifest, and the SHA-256 of the manifest itself."""

    stills: tuple[LabelledStill, ...]
    manifest_sha256: str

    @property
    def enrolled(self) -> tuple[LabelledStill, ...]:
        return tuple(still for still in self.stills if still.split in ENROLLED_SPLITS)

    @property
    def probes(self) -> tuple[LabelledStill, ...]:
        return tuple(still for still in self.stills if still.split == PROBE_SPLIT)


def read_labelled_set(folder: Path, manifest: Path, group_columns: Sequence[str] = ()) -> LabelledSet:
    """Read a manifest; raises InvalidRequest that names the line and what to do."""
    try:
        raw = manifest.read_bytes()
        rows = list(csv.DictReader(raw.decode("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"{manifest} cannot be read: {error}", advice="Give a UTF-8 CSV file.") from error
    columns = set(rows[0]) if rows else set()
    missing = [name for name in (*_REQUIRED, *group_columns) if name not in columns]
    if missing:
        raise InvalidRequest(
            f"{manifest} has no column {', '.join(missing)}.",
            advice="The first line names the columns: path, identity, split and any group columns.",
        )
    groups = sorted({*group_columns, *(name for name in columns if name.startswith(_GROUP_PREFIX))})
    stills = [_still(folder, row, groups) for row in rows if _is_used(row)]
    _require_usable(manifest, stills)
    return LabelledSet(tuple(stills), hashlib.sha256(raw).hexdigest())


def _is_used(row: Mapping[str, str]) -> bool:
    return row["split"] in (*ENROLLED_SPLITS, PROBE_SPLIT) and (row.get("kind") or "still") == "still"


def _still(folder: Path, row: Mapping[str, str], groups: Sequence[str]) -> LabelledStill:
    return LabelledStill(
        name=row["path"],
        path=folder / row["path"],
        identity=row["identity"],
        split=row["split"],
        source=row.get("source") or row.get("source_repo") or "",
        groups={name: row[name] or "(empty)" for name in groups},
    )


def _require_usable(manifest: Path, stills: Sequence[LabelledStill]) -> None:
    absent = [still.name for still in stills if not still.path.is_file()]
    if absent:
        raise InvalidRequest(
            f"{len(absent)} pictures of {manifest} are not in the folder, the first is {absent[0]}.",
            advice="Paths are relative to the folder given.",
        )
    if not any(still.split in ENROLLED_SPLITS for still in stills) or not any(s.split == PROBE_SPLIT for s in stills):
        raise InvalidRequest(
            f"{manifest} has nothing to enrol or nothing to search.",
            advice="Mark rows gallery or distractor to enrol them and probe to search them.",
        )
    _require_distinct(manifest, stills)


def _require_distinct(manifest: Path, stills: Sequence[LabelledStill]) -> None:
    """A picture that is searched among its own copies is found whatever the networks are worth; one that two people are
    said to be on is a miss or a false match that nobody made; one that is listed twice counts twice."""
    first: dict[bytes, LabelledStill] = {}
    for still in stills:
        with still.path.open("rb") as file:
            known = first.setdefault(hashlib.file_digest(file, "sha256").digest(), still)
        if known is not still:
            raise InvalidRequest(
                f"{known.name} and {still.name} of {manifest} are one and the same file.",
                advice="Use each picture once: to enrol, or to search, of one person.",
            )
