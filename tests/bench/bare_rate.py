"""The rate that bulk enrolment is held against: decode, detect, template, and nothing else, one process a core."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from services.embed.ports import Selection
from tests.bench.networks import prepared_models
from tests.bench.reference_paths import FastPath, synthetic_gallery

_path: FastPath | None = None


def _load() -> None:
    global _path  # noqa: PLW0603 - one path a worker process, loaded once
    _path = FastPath(*prepared_models(), synthetic_gallery(1))


def _templates(files: Sequence[str]) -> int:
    assert _path is not None
    for file in files:
        _path.template(Path(file).read_bytes(), Selection.LARGEST)
    return len(files)


def bare_rate(files: Sequence[Path], workers: int | None = None) -> float:
    """Images a second of `workers` one-thread processes (one a core) over these files."""
    workers = workers or len(os.sched_getaffinity(0))
    names = [str(file) for file in files]
    shares = [names[start : start + 8] for start in range(0, len(names), 8)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_load) as pool:
        list(pool.map(_templates, [names[:2]] * workers * 2))  # every worker has loaded and run once
        started = time.perf_counter()
        done = sum(pool.map(_templates, shares))
        return done / (time.perf_counter() - started)
