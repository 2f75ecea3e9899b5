"""`likeness cluster` as an operator runs it, on real portraits and with an embed service of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.portraits import portraits

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def _cluster(folder: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "services.cli",
        "cluster",
        str(folder),
        "--case",
        "NC/2026/0042",
        "--out",
        str(out),
    ]
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=500, check=False, env=os.environ
    )


def test_an_operator_picks_people_not_files(tmp_path: Path) -> None:
    folder, out = tmp_path / "phone", tmp_path / "out"
    folder.mkdir()
    stranger, reference, portrait, other = portraits()
    files = {"1.jpg": reference, "2.jpg": portrait, "copy of 1.jpg": reference, "3.jpg": other, "4.png": stranger}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    both = Image.new("RGB", (1300, 700), "grey")
    for column, content in enumerate((portrait, other)):
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        picture.thumbnail((600, 600))
        both.paste(picture, (30 + 640 * column, 40))
    both.save(folder / "both.jpg", quality=92)
    (folder / "notes.txt").write_text("no picture")

    done = _cluster(folder, out)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "people.json").read_bytes())
    files_of = [set(person["files"]) for person in found["people"]]
    assert {"1.jpg", "2.jpg", "copy of 1.jpg", "both.jpg"} in files_of
    assert {"3.jpg", "both.jpg"} in files_of
    assert found["problems"] == {"image_format_not_allowed": 1}
    assert found["unread"] == [{"file": "notes.txt", "reason": "image_format_not_allowed"}]
    assert "notes.txt: image format not allowed" in (out / "people.html").read_text("utf-8")
    assert (out / "people.html").read_text("utf-8").count("<section") == len(files_of)

    again = _cluster(folder, out, "--forget")
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "people.json").read_bytes())["people"] == found["people"], "looked at once, grouped alike"
    assert not (out / "work.sqlite").exists()
    refused = _cluster(folder, out, "--threshold", "2")
    assert refused.returncode != 0
