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
from services.ingest.bulk.reading import Unreadable, read_image
from services.ingest.bulk.screen import write_report
from services.shared.errors import InvalidRequest
from services.shared.settings import MAX_IMAGE_BYTES

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
        ("path;subject_id\na.jpg;NS-1\n", "path;subject_id"),
        ("path,subject_id,path\na.jpg,NS-1,b.jpg\n", "twice"),
        ("path,subject_id\nSmith, John.jpg,NS-1\n", "more fields than columns"),
        ("path,subject_id\na.jpg,NS-1\nb.jpg,NS-1\na.jpg,NS-2\n", "line 4: a.jpg is NS-2, and NS-1 in line 2"),
        ("path,subject_id\n", "no line"),
        ('path,subject_id\n"a.jpg,NS-1\n' + "x" * 200_000, "near line"),
    ],
)
def test_a_manifest_that_is_wrong_says_where(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        manifest(tmp_path, text)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_refused_and_never_guessed(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(InvalidRequest, match="not UTF-8") as caught:
        manifest(tmp_path, "path,subject_id\na.jpg,NS-\u00d8\n", encoding)
    assert "CSV UTF-8" in caught.value.advice


def test_separators_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        manifest(tmp_path, "path;subject_id\na.jpg;NS-1\n")
    assert "';'" in caught.value.advice


def _sent(tmp_path: Path, name: str) -> bytes:
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    [row] = manifest(folder, f"path,subject_id\n{name},NS-1\n")
    return read_image(row)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link", "linked/secret", "a/../../secret"])
def test_nothing_outside_the_manifests_folder_is_sent(tmp_path: Path, name: str) -> None:
    """A manifest may come from somebody else, and the command reads what its operator may read."""
    (tmp_path / "secret").write_bytes(b"a key")
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "images" / "linked").symlink_to(tmp_path)
    with pytest.raises(Unreadable) as caught:
        _sent(tmp_path, name)
    assert caught.value.problem == "path_outside_folder"


def test_a_file_that_cannot_be_sent_says_why_and_nothing_waits_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "folder").mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    (folder / "round").symlink_to("round")
    (folder / "inside.jpg").write_bytes(b"image")
    (folder / "link.jpg").symlink_to("inside.jpg")
    with (folder / "large").open("wb") as large:
        large.truncate(MAX_IMAGE_BYTES + 1)
    assert _sent(tmp_path, "link.jpg") == b"image"
    told = {}
    for name in ("folder", "pipe", "round", "large", "gone.jpg", "faces\\one.jpg"):
        with pytest.raises(Unreadable) as caught:
            _sent(tmp_path, name)
        told[name] = caught.value
    assert {name: each.problem for name, each in told.items() if each.problem != "file_unreadable"} == {
        "large": "payload_too_large"
    }
    assert "`path` counts from there" in told["gone.jpg"].detail
    assert "not `\\`" in told["faces\\one.jpg"].detail


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
