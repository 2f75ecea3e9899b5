"""Packages are fetched by pip, pinned by hash, and nothing of them runs."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from services.shared.errors import ConfigurationError
from services.shared.packages import PackagePin, fetch_package, read_members

PICTURE = b"not really a picture"
PICTURE_SHA256 = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _wheel(folder: Path) -> PackagePin:
    path = folder / "sample_pictures-1.0-py3-none-any.whl"
    info = "sample_pictures-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sample_pictures/face.jpg", PICTURE)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: sample-pictures\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return PackagePin("sample-pictures", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def _sdist(folder: Path, marker: Path) -> PackagePin:
    """A source package whose setup.py leaves a mark when anything runs it."""
    path = folder / "sample_sources-1.0.tar.gz"
    members = {
        "sample_sources-1.0/setup.py": f"open({str(marker)!r}, 'w').close()\n".encode(),
        "sample_sources-1.0/face.jpg": PICTURE,
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return PackagePin("sample-sources", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_wheel_member_is_read_from_the_fetched_archive(wheels: Path, tmp_path: Path) -> None:
    archive = fetch_package(_wheel(wheels), tmp_path / "cache")
    members = read_members(archive, {"sample_pictures/face.jpg": PICTURE_SHA256})
    assert members == {"sample_pictures/face.jpg": PICTURE}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [archive.name]


def test_an_sdist_is_fetched_and_never_run(wheels: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    archive = fetch_package(_sdist(wheels, marker), tmp_path / "cache")
    assert read_members(archive, {"sample_sources-1.0/face.jpg": PICTURE_SHA256})
    assert not marker.exists()


def test_a_cached_archive_needs_no_index_and_a_damaged_one_is_fetched_again(wheels: Path, tmp_path: Path) -> None:
    pin = _wheel(wheels)
    archive = fetch_package(pin, tmp_path / "cache")
    published = (wheels / pin.filename).rename(tmp_path / "kept.whl")
    assert fetch_package(pin, tmp_path / "cache") == archive
    archive.write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match="cannot be fetched"):
        fetch_package(pin, tmp_path / "cache")
    published.rename(wheels / pin.filename)
    assert fetch_package(pin, tmp_path / "cache").read_bytes() != b"damaged"


def test_other_bytes_than_the_pinned_ones_are_refused(wheels: Path, tmp_path: Path) -> None:
    pin = _wheel(wheels)
    wrong = PackagePin(pin.name, pin.version, pin.filename, "0" * 64)
    with pytest.raises(ConfigurationError, match="cannot be fetched"):
        fetch_package(wrong, tmp_path / "cache")
    archive = fetch_package(pin, tmp_path / "cache")
    with pytest.raises(ConfigurationError, match="pinned is"):
        read_members(archive, {"sample_pictures/face.jpg": "0" * 64})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_members(archive, {"sample_pictures/absent.jpg": "0" * 64})
