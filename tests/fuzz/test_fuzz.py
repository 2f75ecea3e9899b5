"""A short run of every fuzzing target, so that none rots; `make fuzz` runs them for ten minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import run
from tests.fuzz.targets import TARGETS

SHORT_S = 6


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_seed_is_survived(name: str) -> None:
    target = TARGETS[name]
    attempt, seeds = target.prepare(), target.seeds()
    assert seeds
    for seed in seeds:
        attempt(seed)
        attempt(seed[: len(seed) // 2])
        attempt(b"\0" + seed)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_short_run_finds_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run(name, SHORT_S, tmp_path / name)
    with capsys.disabled():
        print(f"\n{figures}")
    assert not figures.failed, (tmp_path / f"{name}.log").read_text("utf-8", "replace")[-4000:]
    assert figures.attempts > len(TARGETS[name].seeds())
    assert figures.coverage > 0
