"""The manifest of a bulk load: a CSV file with a line an image."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
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
    # The folder that the file has to lie in; None where the file was unpacked by ourselves.
    below: Path | None = None

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
            _check_columns(manifest, reader.fieldnames or ())
            return _checked(
                manifest,
                (_row(manifest, folder, reader.line_num, _whole(manifest, reader, line), shared) for line in reader),
            )
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The manifest {manifest} is not UTF-8: byte {error.object[error.start]:#04x} after {error.start} others.",
            advice="Save it as `CSV UTF-8`: names in another encoding would become other people's.",
        ) from error
    except csv.Error as error:
        raise InvalidRequest(
            f"The manifest {manifest} is no CSV near line {reader.line_num}: {error}.",
            advice="Save it as CSV UTF-8 with commas.",
        ) from error
    except OSError as error:
        raise InvalidRequest(
            f"The manifest {manifest} cannot be read: {error.strerror}.",
            advice="Put manifest.csv into the folder, or name one with --manifest.",
        ) from error


def _check_columns(manifest: Path, columns: Sequence[str]) -> None:
    """Raises InvalidRequest, with what there is instead."""
    doubled = sorted({name for name in columns if columns.count(name) > 1 and name in {PATH, SUBJECT, *SHARED, *SAID}})
    if doubled:
        raise InvalidRequest(
            f"The manifest {manifest} has the column {doubled[0]} twice.",
            advice="Take the one out that does not count.",
        )
    missing = {PATH, SUBJECT} - set(columns)
    if not missing:
        return
    separator = next((each for each in (";", "\t", "|") if any(each in name for name in columns)), "")
    shown = ", ".join(columns)[:200] or "nothing"
    advice = f"Name the columns in its first line: {PATH}, {SUBJECT}; further ones: " + ", ".join([*SHARED, *SAID])
    if separator:
        advice = f"Separate them by commas; {separator!r} is in the first line."
    raise InvalidRequest(
        f"The manifest {manifest} has no column {' and no column '.join(sorted(missing))}; its first line has {shown}.",
        advice=advice,
    )


def _whole(manifest: Path, reader: csv.DictReader[str], line: dict[str, str | None]) -> Mapping[str, str | None]:
    """A comma too many moves every field after it, the subject with them. Raises InvalidRequest."""
    if None in line:
        raise InvalidRequest(
            f"{manifest}, line {reader.line_num}: more fields than columns.",
            advice="Put a text with a comma in it into double quotes.",
        )
    return line


def _checked(manifest: Path, rows: Iterable[BulkRow]) -> list[BulkRow]:
    """Raises InvalidRequest when there is none, or when one file is said to show two people."""
    found: list[BulkRow] = []
    whose: dict[tuple[str, str, str], tuple[str, int]] = {}
    for row in rows:
        subject_id = row.fields[SUBJECT]
        known, line = whose.setdefault((row.name, row.fields["watchlist"], row.fields["owner"]), (subject_id, row.line))
        if known != subject_id:
            raise InvalidRequest(
                f"{manifest}, line {row.line}: {row.name} is {subject_id}, and {known} in line {line}.",
                advice="Find out whose image it is: it would be enrolled for both.",
            )
        found.append(row)
    if not found:
        raise InvalidRequest(f"The manifest {manifest} has no line.", advice="Write a line an image below the columns.")
    return found


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
        _check_columns(manifest, known)
        columns = [name for name in (PATH, SUBJECT, *SHARED, *SAID) if name in known]
        lines = parquet.read_table(manifest, columns=columns).to_pylist()
    except (OSError, ArrowException) as error:
        raise InvalidRequest(f"The manifest {manifest} cannot be read: {error}", advice="Write it again.") from error
    rows = (
        _row(manifest, folder, number, {name: None if v is None else str(v) for name, v in line.items()}, shared)
        for number, line in enumerate(lines, 1)
    )
    return _checked(manifest, rows)


def _row(
    manifest: Path, folder: Path, number: int, line: Mapping[str, str | None], shared: Mapping[str, str]
) -> BulkRow:
    below = None if folder == Path() else folder  # the files of an archive are found by name
    return row_of(manifest, number, line, shared, folder / (line.get(PATH) or "").strip(), below)


def row_of(  # noqa: PLR0917 - a line and where it stands
    manifest: Path,
    number: int,
    line: Mapping[str, str | None],
    shared: Mapping[str, str],
    path: Path,
    below: Path | None = None,
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
    return BulkRow(number, name, path, fields | said, below)
