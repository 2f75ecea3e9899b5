"""A short run of every fuzzing target, so that none rots; `make fuzz` runs them for ten minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import run
from tests.fuzz.targets import TARGETS

SHORT_S = 6
# What fails once is to fail again, and a busy machine is no find.
SEED, SLOWEST_S = 20261123, 150


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_seed_is_survived(name: str) -> None:
    """In a process of its own: a target sets decoders and logs up for itself."""
    command = [sys.executable, "-m", "tests.fuzz", name, "--seeds"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-2]) > 0


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_short_run_finds_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run(name, SHORT_S, tmp_path / name, seed=SEED, slowest_s=SLOWEST_S)
    with capsys.disabled():
        print(f"\n{figures}")
    assert not figures.failed, (tmp_path / f"{name}.log").read_text("utf-8", "replace")[-4000:]
    assert figures.attempts > 10
    assert figures.coverage > 0
