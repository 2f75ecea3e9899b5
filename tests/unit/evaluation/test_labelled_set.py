"""Manifests are read as documented, and what is wrong with one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.local.evaluation.labelled_set import read_labelled_set
from services.shared.errors import InvalidRequest


def _set(folder: Path, *lines: str) -> Path:
    for line in lines[1:]:
        name = line.split(",", maxsplit=1)[0]
        (folder / name).write_bytes(name.encode())
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    return manifest


def test_reads_stills_sources_and_groups(tmp_path: Path) -> None:
    manifest = _set(
        tmp_path,
        "path,identity,split,kind,source_repo,group_age,light",
        "a.jpg,anna,gallery,still,one,young,day",
        "b.jpg,anna,probe,still,two,,night",
        "c.jpg,crowd,probe,group,two,,night",
        "d.jpg,dora,distractor,,two,old,day",
        "e.jpg,dora,unused,still,two,old,day",
    )
    labelled = read_labelled_set(tmp_path, manifest, ["light"])
    assert [still.name for still in labelled.enrolled] == ["a.jpg", "d.jpg"]
    (probe,) = labelled.probes
    assert (probe.identity, probe.source) == ("anna", "two")
    assert probe.groups == {"group_age": "(empty)", "light": "night"}
    assert len(labelled.manifest_sha256) == 64


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (("path,split", "a.jpg,probe"), "identity"),
        (("path,identity,split", "a.jpg,anna,probe"), "nothing to enrol"),
        (("path,identity,split", "a.jpg,anna,gallery"), "nothing to search"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, lines: tuple[str, ...], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        read_labelled_set(tmp_path, _set(tmp_path, *lines))


def test_names_a_picture_that_is_not_there(tmp_path: Path) -> None:
    manifest = _set(tmp_path, "path,identity,split", "a.jpg,anna,gallery", "b.jpg,anna,probe")
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(InvalidRequest, match=r"b\.jpg"):
        read_labelled_set(tmp_path, manifest)


def test_an_unknown_group_column_is_refused(tmp_path: Path) -> None:
    manifest = _set(tmp_path, "path,identity,split", "a.jpg,anna,gallery", "b.jpg,anna,probe")
    with pytest.raises(InvalidRequest, match="tattoo"):
        read_labelled_set(tmp_path, manifest, ["tattoo"])


@pytest.mark.parametrize("second", ["b.jpg,anna,probe", "b.jpg,bert,gallery", "a.jpg,anna,probe"])
def test_a_picture_is_used_once(tmp_path: Path, second: str) -> None:
    manifest = _set(tmp_path, "path,identity,split", "a.jpg,anna,gallery", "c.jpg,carl,probe", second)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    with pytest.raises(InvalidRequest, match=r"a\.jpg and [ab]\.jpg of .* are one and the same file"):
        read_labelled_set(tmp_path, manifest)
