"""Pictures that a killed process left in a folder of its own are gone at the next start of such a process."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from services.shared.work_folder import work_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _age(folder: Path) -> None:
    os.utime(folder, (1_000_000_000, 1_000_000_000))


def test_it_is_empty_and_gone_afterwards(temporary: Path) -> None:
    with work_folder("enrol") as folder:
        assert list(folder.iterdir()) == []
        (folder / "picture").write_bytes(b"somebody")
    assert list(temporary.iterdir()) == []


def test_leftovers_go_and_a_living_ones_folder_stays(temporary: Path) -> None:
    left = temporary / "likeness-enrol-left"
    left.mkdir()
    (left / "1").write_bytes(b"somebody")
    elsewhere = temporary / "kept"
    elsewhere.mkdir()
    link = temporary / "likeness-enrol-link"
    link.symlink_to(elsewhere)
    for path in (left, elsewhere):
        _age(path)
    with work_folder("enrol") as first:
        _age(first)
        with work_folder("enrol") as second:
            assert first.is_dir()
            assert second.is_dir()
            assert not left.exists()
    assert {path.name for path in temporary.iterdir()} == {"kept", "likeness-enrol-link"}


def test_one_that_is_just_being_made_is_left_alone(temporary: Path) -> None:
    (temporary / "likeness-enrol-young").mkdir()
    with work_folder("enrol"):
        assert (temporary / "likeness-enrol-young").exists()
