"""Manifests, the journal and the report of a bulk load."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from services.ingest.bulk.client import Outcome, Submitted
from services.ingest.bulk.journal import Journal
from services.ingest.bulk.loader import Report
from services.ingest.bulk.manifest import BulkRow, read_manifest
from services.ingest.bulk.screen import write_report
from services.shared.errors import InvalidRequest

SHARED = {"watchlist": "custody", "owner": "northshire", "lawful_basis": "b", "captured_on": "2026-01-01"}


def manifest(path: Path, text: str, encoding: str = "utf-8") -> list[BulkRow]:
    file = path / "manifest.csv"
    file.write_bytes(text.encode(encoding))
    return read_manifest(file, path, SHARED)


def test_a_line_says_more_than_the_options(tmp_path: Path) -> None:
    text = "subject_id,path,watchlist,unused\nNS-1,a.jpg,sex_offenders,x\nNS-2,b.jpg,,y\n"
    first, second = manifest(tmp_path, text, "utf-8-sig")
    assert (first.path, first.line) == (tmp_path / "a.jpg", 2)
    assert dict(first.fields) == {
        **SHARED,
        "watchlist": "sex_offenders",
        "subject_id": "NS-1",
        "agreement_reference": "",
    }
    assert second.fields["watchlist"] == "custody"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("path,subject\na,b\n", "subject_id"),
        ("path,subject_id\n,NS-1\n", "line 2"),
        ("path,subject_id\na.jpg,\n", "line 2"),
        ("", "path"),
    ],
)
def test_a_manifest_that_is_wrong_says_where(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        manifest(tmp_path, text)


def test_what_is_given_nowhere_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,subject_id\na.jpg,NS-1\n")
    with pytest.raises(InvalidRequest) as caught:
        read_manifest(tmp_path / "manifest.csv", tmp_path, {**SHARED, "lawful_basis": ""})
    assert "--lawful-basis" in caught.value.advice


def test_a_key_changes_with_the_file_and_the_fields(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"one")
    [row] = manifest(tmp_path, "path,subject_id\na.jpg,NS-1\n")
    [other] = manifest(tmp_path, "path,subject_id\na.jpg,NS-2\n")
    first = row.key
    assert first == row.key
    assert first != other.key
    image.write_bytes(b"two!")
    assert row.key != first
    os.utime(image, ns=(1, 1))
    changed = row.key
    os.utime(image, ns=(2, 2))
    assert row.key != changed


def test_the_journal_survives_a_line_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "journal.jsonl"
    journal = Journal(path)
    journal.note({"k1": "e1", "k2": "e2"})
    journal.close()
    path.write_text(path.read_text() + '["k3", "e')
    again = Journal(path)
    assert [again.enrolment_id(key) for key in ("k1", "k2", "k3")] == ["e1", "e2", None]
    again.note({"k4": "e4"})
    again.close()
    last = Journal(path)
    assert [last.enrolment_id(key) for key in ("k1", "k4")] == ["e1", "e4"]
    last.close()


def test_a_report_is_inert_in_a_spreadsheet(tmp_path: Path) -> None:
    rows = [
        BulkRow(2, "=cmd|' /C calc'!A0", tmp_path, {**SHARED, "subject_id": "+44"}),
        BulkRow(3, "b.jpg", tmp_path, {**SHARED, "subject_id": "NS-2"}),
        BulkRow(4, "c.jpg", tmp_path, {**SHARED, "subject_id": "NS-3"}),
    ]
    report = Report(
        submissions={
            2: Submitted(rows[0], enrolment_id="e1"),
            3: Submitted(rows[1], problem="image_empty", detail="@x"),
        },
        outcomes={"e1": Outcome("refused", "no_face_found", "No face.")},
        stopped_by="interrupted",
    )
    write_report(tmp_path / "r.csv", rows, report)
    with (tmp_path / "r.csv").open(newline="") as file:
        lines = list(csv.reader(file))[1:]
    assert lines[0][0].startswith("'=")
    assert lines[0][1] == "'+44"
    assert lines[0][4:7] == ["e1", "refused", "no_face_found"]
    assert lines[1][5:] == ["not_submitted", "image_empty", "'@x"]
    assert lines[2][5:] == ["not_submitted", "stopped", "interrupted"]
