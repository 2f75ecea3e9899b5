"""A folder's people: grouping, going on after a stop, copies, what is no picture, and names that bite."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from services.local.cluster import grouping
from services.local.cluster.grouping import group_faces
from services.local.cluster.people import find_people
from services.local.cluster.reading import list_files, look_at_pictures
from services.local.cluster.sheet import write_sheet
from services.local.cluster.work import ClusterWork
from services.rpc.v1 import embed_pb2
from services.shared.biometric import (
    Assessment,
    Box,
    DetectedFace,
    FaceTemplate,
    ImageAnalysis,
    ImageInfo,
    MeasuredRate,
    ModelProvenance,
    Quality,
    Vector,
)
from services.shared.errors import ConfigurationError, DependencyUnavailable, ImageRefused
from tests.accuracy.clustering import b_cubed, chinese_whispers
from tests.integration.search.peers import provenance

RATE = MeasuredRate(0, 1, 0, 1, 0.01, "test")


def _person(name: int) -> np.ndarray:
    return np.random.default_rng(name).standard_normal(128)


def _face_of(name: int, take: int, noise: float = 0.5) -> Vector:
    vector = _person(name) + noise * np.random.default_rng([name, take]).standard_normal(128)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _crowd(people: int, takes: int) -> tuple[np.ndarray, np.ndarray]:
    faces = np.stack([_face_of(name, take) for take in range(takes) for name in range(people)])
    return faces, np.tile(np.arange(people), takes)


def test_faces_of_one_person_are_one_group() -> None:
    faces, people = _crowd(12, 7)
    assert b_cubed(group_faces(faces, 0.4), people) == (1.0, 1.0, 1.0)
    assert b_cubed(chinese_whispers(faces, 0.4), people) == (1.0, 1.0, 1.0)


def test_parts_of_the_graph_are_grouped_as_everything_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing hangs on blocks; where a part is too large it is cut by a stricter graph."""
    faces, people = _crowd(9, 9)
    whole = group_faces(faces, 0.4)
    monkeypatch.setattr(grouping, "_BLOCK", 7)
    assert b_cubed(group_faces(faces, 0.4), whole) == (1.0, 1.0, 1.0)
    monkeypatch.setattr(grouping, "_LARGEST_PART", 5)
    assert b_cubed(group_faces(faces, 0.4), people)[0] == 1.0
    assert group_faces(np.empty((0, 128), np.float32)).size == 0


def test_b_cubed_counts_faces() -> None:
    assert b_cubed([0, 0, 0, 0], [1, 1, 2, 2]) == pytest.approx((0.5, 1.0, 2 / 3))
    assert b_cubed([0, 1, 2, 3], [1, 1, 2, 2]) == pytest.approx((1.0, 0.5, 2 / 3))


@dataclass
class FakeEmbed:
    """Reads who is on a picture from its bytes: b"1,2 note"; stops answering after so many calls."""

    answers: int = 1000
    asked: list[bytes] = field(default_factory=list)

    def analyse(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, face_index: int = 0
    ) -> ImageAnalysis:
        assert selection == embed_pb2.AnalyseRequest.ALL_WITH_CHIPS
        if len(self.asked) >= self.answers:
            raise RuntimeError("stopped")
        self.asked.append(image)
        if image.startswith(b"not a picture"):
            raise ImageRefused("No.", advice="Send a picture.", code="image_format_not_allowed")
        names = [int(name) for name in image.split()[0].split(b",")] if image.strip() else []
        faces = tuple(_detected(name, len(self.asked)) for name in names)
        return ImageAnalysis(ImageInfo("JPEG", 10, 10, 1, 1, 1), faces, _model(), {})


def _model() -> ModelProvenance:
    return provenance()


def _detected(name: int, take: int) -> DetectedFace:
    grade = "unsuitable" if name == 99 else "suitable"
    return DetectedFace(
        box=Box(0, 0, 10, 10),
        landmarks=(),
        detection_score=0.9,
        inter_eye_px=40.0,
        quality=Quality(60.0 + take, {}),
        template=FaceTemplate(_face_of(name, take), "m"),
        assessment=Assessment(grade, RATE, ()),
        chip=b"jpeg",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "phone"
    (root / "DCIM").mkdir(parents=True)
    for name, content in {
        "DCIM/a.jpg": b"1 first",
        "DCIM/b.jpg": b"1,2 second",
        "copy of a.jpg": b"1 first",
        "c.jpg": b"2 third",
        "poor.jpg": b"99 dark",
        "notes.txt": b"not a picture",
        "empty.jpg": b"",
        "<script>alert(1)</script>.jpg": b"3 x",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "link.jpg").symlink_to("/etc/hostname")
    return root


def _run(folder: Path, work: ClusterWork, embed: FakeEmbed) -> None:
    list_files(folder, work, lambda _count: None)
    look_at_pictures(folder, work, embed, 1, lambda _count: None)


def test_people_of_a_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "<script>alert(1)<").mkdir(exist_ok=True)
    work = ClusterWork(tmp_path / "work.sqlite")
    embed = FakeEmbed()
    _run(folder, work, embed)
    found = find_people(work, 0.3)
    assert (found.files, found.contents) == (8, 7), "copies are one content, links are none"
    assert len(embed.asked) == 7
    assert [person.paths for person in found.people[:2]] == [
        ("DCIM/a.jpg", "DCIM/b.jpg", "copy of a.jpg"),
        ("DCIM/b.jpg", "c.jpg"),
    ]
    assert len(found.poor) == 1
    assert found.problems == {"image_format_not_allowed": 1, "no_face_found": 1}
    assert "template" not in str(found.as_json())
    sheet = tmp_path / "people.html"
    write_sheet(found, sheet, folder="phone", case="C-1 <b>", model_id="m", threshold=0.3, at="now")
    text = sheet.read_text("utf-8")
    assert "<script>" not in text
    assert "C-1 &lt;b&gt;" in text
    assert (tmp_path / "work.sqlite").stat().st_mode & 0o077 == 0
    work.close()


def test_a_stopped_run_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "work.sqlite"
    work, first = ClusterWork(path), FakeEmbed(answers=3)
    with pytest.raises(RuntimeError, match="stopped"):
        _run(folder, work, first)
    work.close()
    work, second = ClusterWork(path), FakeEmbed()
    _run(folder, work, second)
    assert set(first.asked).isdisjoint(second.asked)
    assert len(first.asked) + len(second.asked) == 7
    again = FakeEmbed(answers=0)
    _run(folder, work, again)
    assert again.asked == [], "nothing is left to do"
    (folder / "c.jpg").unlink()
    (folder / "DCIM/a.jpg").write_bytes(b"2 changed")
    changed = FakeEmbed()
    _run(folder, work, changed)
    assert changed.asked == [b"2 changed"]
    assert "c.jpg" not in find_people(work, 0.3).people[0].paths
    work.close()


def test_work_of_another_case_is_not_gone_on_with(tmp_path: Path) -> None:
    work = ClusterWork(tmp_path / "work.sqlite")
    work.require("case", "C-1")
    work.require("case", "C-1")
    with pytest.raises(ConfigurationError):
        work.require("case", "C-2")
    work.close()


def test_embed_that_is_gone_stops_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.local.cluster.reading._PATIENCE_S", 0.0)
    work, embed = ClusterWork(tmp_path / "work.sqlite"), FakeEmbed()

    def gone(*_: object) -> ImageAnalysis:
        raise DependencyUnavailable("embed does not answer.", advice="Start it.")

    monkeypatch.setattr(embed, "analyse", gone)
    with pytest.raises(DependencyUnavailable):
        _run(folder, work, embed)
    assert len(work.pending()) == 7, "none of them is held for broken"
    work.close()
