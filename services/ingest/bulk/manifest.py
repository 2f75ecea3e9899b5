"""The manifest of a bulk load: a CSV file with a line an image."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.shared.errors import InvalidRequest

PATH, SUBJECT = "path", "subject_id"
# May stand in the manifest, or be given once for all on the command line.
SHARED = ("watchlist", "owner", "lawful_basis", "captured_on", "agreement_reference")
# May stand in the manifest beside them.
SAID = ("pose", "custody_reference", "capture_device", "birth_band")


@dataclass(frozen=True, slots=True)
class BulkRow:
    """One image to enrol. `fields` are the form fields beside the image; `name` is its path as the manifest has it."""

    line: int
    name: str
    path: Path
    fields: Mapping[str, str]

    @property
    def key(self) -> str:
        """The same for the same image file under the same fields; another when either changes."""
        stat = self.path.stat()
        facts = [
            self.name,
            str(stat.st_size),
            str(stat.st_mtime_ns),
            *(f"{k}={v}" for k, v in sorted(self.fields.items())),
        ]
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def read_manifest(manifest: Path, folder: Path, shared: Mapping[str, str]) -> list[BulkRow]:
    """Every line as a row; what a line leaves empty is taken from `shared`. Other columns are ignored.

    Raises InvalidRequest when the file cannot be read, lacks a column or has a line without path or subject.
    """
    if manifest.suffix.lower() == ".parquet":
        return _read_parquet(manifest, folder, shared)
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {PATH, SUBJECT} - set(reader.fieldnames or ())
            if missing:
                raise InvalidRequest(
                    f"The manifest {manifest} has no column {' and no column '.join(sorted(missing))}.",
                    advice=f"Name the columns in its first line: {PATH}, {SUBJECT}; further ones: "
                    + ", ".join([*SHARED, *SAID]),
                )
            return [_row(manifest, folder, reader.line_num, line, shared) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"The manifest {manifest} cannot be read: {error}", advice="Give a CSV file.") from error


def _read_parquet(manifest: Path, folder: Path, shared: Mapping[str, str]) -> list[BulkRow]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped] # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidRequest(
            f"{manifest} is a Parquet file, and pyarrow is not installed.",
            advice="Install `likeness[parquet]`, or give a CSV file.",
        ) from error
    try:
        known = parquet.read_schema(manifest).names
        missing = {PATH, SUBJECT} - set(known)
        if missing:
            raise InvalidRequest(f"The manifest {manifest} has no column {', '.join(sorted(missing))}.")
        columns = [name for name in (PATH, SUBJECT, *SHARED, *SAID) if name in known]
        lines = parquet.read_table(manifest, columns=columns).to_pylist()
    except (OSError, ArrowException) as error:
        raise InvalidRequest(f"The manifest {manifest} cannot be read: {error}", advice="Write it again.") from error
    return [
        _row(manifest, folder, number, {name: None if v is None else str(v) for name, v in line.items()}, shared)
        for number, line in enumerate(lines, 1)
    ]


def _row(
    manifest: Path, folder: Path, number: int, line: Mapping[str, str | None], shared: Mapping[str, str]
) -> BulkRow:
    return row_of(manifest, number, line, shared, folder / (line.get(PATH) or "").strip())


def row_of(
    manifest: Path, number: int, line: Mapping[str, str | None], shared: Mapping[str, str], path: Path
) -> BulkRow:
    """One line of a manifest, or what stands for one. Raises InvalidRequest when something is lacking."""
    name, subject_id = (line.get(PATH) or "").strip(), (line.get(SUBJECT) or "").strip()
    if not name or not subject_id:
        raise InvalidRequest(f"{manifest}, line {number}: path or subject_id is empty.", advice="Fill it in.")
    fields = {SUBJECT: subject_id}
    for column in SHARED:
        fields[column] = (line.get(column) or "").strip() or shared.get(column, "")
    lacking = [column for column in SHARED[:-1] if not fields[column]]
    if lacking:
        raise InvalidRequest(
            f"{manifest}, line {number}: {', '.join(lacking)} is neither in the manifest nor given for all.",
            advice="Add the column, or give the option: "
            + " ".join(f"--{column.replace('_', '-')}" for column in lacking),
        )
    # Left out where nothing is said, so that a journal from before knows its images again.
    said = {column: text for column in SAID if (text := (line.get(column) or "").strip())}
    return BulkRow(number, name, path, fields | said)
