"""The committed files, for tests about the repository itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def committed_files() -> tuple[Path, ...]:
    """Every file that git tracks and that is there; skips outside a checkout."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return tuple(path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file())


def committed_texts() -> tuple[tuple[Path, str], ...]:
    """Every committed text file with its content."""
    found = []
    for path in committed_files():
        try:
            found.append((path, path.read_text("utf-8")))
        except UnicodeDecodeError:
            continue  # a picture or another binary file
    return tuple(found)
