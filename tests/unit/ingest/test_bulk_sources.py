"""What a bulk load reads besides folders: Type-10 transactions, archives, Parquet; and what it refuses of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nistitl  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.ingest.bulk import sources
from services.ingest.bulk.manifest import BulkRow
from services.ingest.bulk.sources import Type10Mapping, UnpackLimits, read_source
from services.ingest.bulk.type10 import FaceRecord, faces_of, read_transaction, write_transaction
from services.shared.errors import InvalidRequest

SHARED = {"watchlist": "custody", "owner": "northshire", "lawful_basis": "pace_1984_s64a", "captured_on": "2026-03-01"}


def jpeg(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 64), (red, 80, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


FACES = [
    FaceRecord("01", jpeg(10) + b"\x1c\x1d in the data", "2026-02-03", "frontal", "NORTHSHIRE", {10: "NS-77"}),
    FaceRecord("02", jpeg(200), "2026-02-03", "left_profile", "NORTHSHIRE", {10: "NS-77"}),
]


def ours() -> bytes:
    return write_transaction(FACES, agency="NORTHSHIRE", number="T-1", day="2026-03-01", sizes=[(48, 64)] * 2)


def theirs(subject_id: str = "EM-5", charset: str = "") -> bytes:
    """Made by another library."""
    message = nistitl.Message()
    one = message[0]
    one.TOT, one.DAI, one.ORI, one.TCN = "FACE", "EAST", "EAST", "T-2"
    if charset:
        one.DCS = charset
    two = nistitl.AsciiRecord(2)
    two.IDC = "00"
    two._10 = subject_id
    message += two
    for place, (pose, image) in enumerate((("F", jpeg(1)), ("R", jpeg(2))), 1):
        ten = nistitl.AsciiRecord(10)
        ten.IDC, ten.IMT, ten.SRC, ten.PHD = f"{place:02d}", "FACE", "EAST", "20250607"
        ten.HLL, ten.VLL, ten.SLC, ten.THPS, ten.TVPS = "48", "64", "0", "1", "1"
        ten.CGA, ten.CSP, ten.POS = "JPEGB", "SRGB", pose
        ten.DATA = image
        message += ten
    content: bytes = message.NIST
    return content


def test_a_transaction_of_another_librarys_making_is_read() -> None:
    faces = faces_of(read_transaction(theirs()))
    assert [(face.captured_on, face.pose, face.source_agency) for face in faces] == [
        ("2025-06-07", "frontal", "EAST"),
        ("2025-06-07", "right_profile", "EAST"),
    ]
    assert [face.image for face in faces] == [jpeg(1), jpeg(2)]
    assert faces[0].descriptive[10] == "EM-5"


def test_another_library_reads_ours() -> None:
    message = nistitl.Message()
    message.parse(ours())
    tens = list(message.iter(10))
    assert [bytes(ten.DATA) for ten in tens] == [face.image for face in FACES]
    assert [(ten.POS, ten.PHD, ten.SRC) for ten in tens] == [
        ("F", "20260203", "NORTHSHIRE"),
        ("L", "20260203", "NORTHSHIRE"),
    ]
    assert next(message.iter(2))._10 == "NS-77"


def test_ours_comes_back_as_it_was() -> None:
    assert [(face.image, face.pose, face.captured_on) for face in faces_of(read_transaction(ours()))] == [
        (face.image, face.pose, face.captured_on) for face in FACES
    ]


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content + b"more",
        lambda content: content.replace(b"10.001:", b"10.001:9", 1),
        lambda content: content.replace(b"\x1e10\x1f02", b"", 1),
        lambda content: content.replace(b"1.003:1", b"1.003:x", 1),
        lambda content: b"\xff\xd8\xff" + content,
    ],
)
def test_a_transaction_whose_lengths_or_counts_lie_is_refused(harm: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InvalidRequest):
        faces_of(read_transaction(harm(ours())))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_nothing_breaks_the_reader(noise: bytes, at: int) -> None:
    content = ours()
    for each in (noise, content[:at] + noise + content[at + len(noise) :]):
        try:
            faces_of(read_transaction(each))
        except InvalidRequest:
            continue


def rows_of(source: Path, work: Path, limits: UnpackLimits | None = None) -> list[BulkRow]:
    work.mkdir(exist_ok=True)
    return read_source(source, None, SHARED, work, limits=limits)


def test_transactions_become_rows_with_the_same_keys_each_time(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.an2").write_bytes(ours())
    (tmp_path / "in" / "b.AN2").write_bytes(theirs())
    first, second = rows_of(tmp_path / "in", tmp_path / "1"), rows_of(tmp_path / "in", tmp_path / "2")
    assert [row.fields["subject_id"] for row in first] == ["NS-77", "NS-77", "EM-5", "EM-5"]
    assert [row.fields["captured_on"] for row in first] == ["2026-02-03"] * 2 + ["2025-06-07"] * 2
    assert [row.fields["pose"] for row in first] == ["frontal", "left_profile", "frontal", "right_profile"]
    assert [row.key for row in first] == [row.key for row in second]
    assert first[2].path.read_bytes() == jpeg(1)


def test_a_subject_in_an_unnamed_character_set_is_refused_and_never_guessed(tmp_path: Path) -> None:
    """Two people whose identifiers differ in such a letter alone would become one."""
    source = tmp_path / "a.an2"
    source.write_bytes(theirs("EM-\u00d8"))  # the library writes Latin-1 and does not say so
    with pytest.raises(InvalidRequest, match="character set"):
        rows_of(source, tmp_path / "1")
    source.write_bytes(theirs("EM-\u00d8", charset="001"))
    assert rows_of(source, tmp_path / "2")[0].fields["subject_id"] == "EM-\u00d8"
    face = replace(FACES[1], descriptive={10: "EM-\u00d8"})
    utf8 = write_transaction([face], agency="EAST", number="T-3", day="2026-03-01", sizes=[(48, 64)])
    assert b"1.015:003\x1fUTF-8" in utf8
    source.write_bytes(utf8)
    assert rows_of(source, tmp_path / "3")[0].fields["subject_id"] == "EM-\u00d8"


def test_a_transaction_that_names_nobody_says_which_fields_it_has(tmp_path: Path) -> None:
    source = tmp_path / "a.an2"
    source.write_bytes(theirs())
    with pytest.raises(InvalidRequest) as refused:
        read_source(source, None, SHARED, tmp_path, mapping=Type10Mapping(subject_field=31))
    assert "2.031" in refused.value.detail
    assert "2.010" in refused.value.advice


MANIFEST = b"path,subject_id\nfaces/one.jpg,S-1\n../two.jpg,S-2\nnot there.jpg,S-3\n"
MEMBERS = {"manifest.csv": MANIFEST, "faces/one.jpg": b"one", "../two.jpg": b"two", "/etc/three.jpg": b"three"}


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)


def _tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in MEMBERS.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_no_name_in_an_archive_becomes_a_path(tmp_path: Path, pack: Callable[[Path], None]) -> None:
    source, work = tmp_path / "images.archive", tmp_path / "work"
    pack(source)
    before = {path for path in tmp_path.rglob("*") if work not in path.parents}
    rows = rows_of(source, work)
    assert [row.path.read_bytes() for row in rows[:2]] == [b"one", b"two"]
    assert not rows[2].path.exists()
    assert {path.parent for path in work.rglob("*")} == {work}, "everything lies flat in the work folder"
    assert {path for path in tmp_path.rglob("*") if work not in path.parents} - {work} == before
    assert not any(path.is_symlink() for path in work.iterdir())


@pytest.mark.parametrize(
    "limits",
    [UnpackLimits(members=3), UnpackLimits(member_bytes=1000), UnpackLimits(total_bytes=2000)],
)
def test_bombs_do_not_go_off(tmp_path: Path, limits: UnpackLimits) -> None:
    source = tmp_path / "bomb.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.csv", MANIFEST)
        for number in range(3):
            archive.writestr(f"{number}.jpg", b"\0" * (3_000_000 if limits.member_bytes == 1000 else 900))
    with pytest.raises(InvalidRequest):
        rows_of(source, tmp_path / "work", limits)
    assert sum(path.stat().st_size for path in (tmp_path / "work").iterdir()) < 2_000_000


def test_a_bomb_that_no_other_limit_stops_is_told_by_its_growth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_BOMB_BYTES", 1_000_000)
    source = tmp_path / "bomb.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5):
            archive.writestr(f"{number}.jpg", b"\0" * 1_000_000)
    with pytest.raises(InvalidRequest, match="times its size"):
        rows_of(source, tmp_path / "work")


def test_an_archive_that_names_a_file_twice_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "images.tar"
    with tarfile.open(source, "w") as archive:
        for content in (b"one", b"two"):
            member = tarfile.TarInfo("faces/one.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(InvalidRequest, match="twice"):
        rows_of(source, tmp_path / "work")


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_a_broken_archive_is_refused_in_words_wherever_it_breaks(tmp_path: Path, pack: Callable[[Path], None]) -> None:
    source = tmp_path / "images.archive"
    pack(source)
    whole = source.read_bytes()
    for place in range(0, len(whole), 7):
        source.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        with suppress(InvalidRequest):
            rows_of(source, tmp_path / f"work-{place}")
        source.write_bytes(whole[:place])
        with suppress(InvalidRequest):
            rows_of(source, tmp_path / f"cut-{place}")


def test_another_image_under_the_same_name_is_another_to_the_journal(tmp_path: Path) -> None:
    keys = []
    for number, content in enumerate((b"one", b"two", b"one")):
        source = tmp_path / "images.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("manifest.csv", b"path,subject_id\na.jpg,S-1\n")
            archive.writestr("a.jpg", content)
        keys.append(rows_of(source, tmp_path / str(number))[0].key)
    assert keys[0] == keys[2] != keys[1]


def test_a_transaction_among_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.an2").write_bytes(ours())
    (tmp_path / "in" / "torn.an2").write_bytes(ours()[:-1])
    with pytest.raises(InvalidRequest, match=r"torn\.an2"):
        rows_of(tmp_path / "in", tmp_path / "work")


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "images.zip"
    source.write_bytes(b"no archive at all")
    with pytest.raises(InvalidRequest):
        rows_of(source, tmp_path / "work")


def test_a_parquet_manifest_says_the_same_as_a_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"path": ["a.jpg", "b.jpg"], "subject_id": ["S-1", "S-2"], "captured_on": ["2026-01-01", None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_text("path,subject_id,captured_on\na.jpg,S-1,2026-01-01\nb.jpg,S-2,\n")
    one, other = (read_source(tmp_path, tmp_path / name, SHARED, tmp_path / "work") for name in ("m.parquet", "m.csv"))
    assert [(row.name, row.path, row.fields) for row in one] == [(row.name, row.path, row.fields) for row in other]
