"""Load on the whole platform with a stand-in for the networks: what everything around them can carry.

    python -m tests.bench.load [--minutes 30] [--searches 20] [--enrolments 10] [--out build/bench]

Requests come at their times whether or not the ones before have been answered (an open loop), and a request's time
counts from when it was due. After the steady part ten times as much comes for 20 seconds, which has to be shed at once,
and then the steady rate again, which has to be normal within 10 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import platform_measures
from tests.bench.goals import UNIT_SIZE
from tests.bench.load_clients import SHED, Answers, Driver, Onlooker
from tests.support.platform import Platform

_BURST_FACTOR, _BURST_S = 10, 20.0


def load_run(minutes: float, searches_per_s: float, enrolments_per_s: float) -> dict[str, Any]:
    """The whole run on a platform of its own with the unit's gallery."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="likeness-load-"))
        stub = {"LIKENESS_EMBED__MODEL__KIND": "stub"}
        platform = stack.enter_context(Platform(Path(folder) / "data", settings=stub))
        platform_measures.fill(platform, UNIT_SIZE)
        driver, onlooker = Driver(platform, stack), Onlooker(platform)
        driver.run(5.0, searches_per_s, enrolments_per_s)
        steady = driver.run(60 * minutes, searches_per_s, enrolments_per_s)
        print(json.dumps({"steady": {kind: answers.summary() for kind, answers in steady.items()}}), flush=True)
        burst, seen = onlooker.look_on(
            lambda: driver.run(_BURST_S, _BURST_FACTOR * searches_per_s, _BURST_FACTOR * enrolments_per_s)
        )
        after = driver.run(20.0, searches_per_s, enrolments_per_s)
        figures: dict[str, Any] = {
            "minutes": minutes,
            "searches_per_s": searches_per_s,
            "enrolments_per_s": enrolments_per_s,
            "steady": {kind: answers.summary() for kind, answers in steady.items()},
            "burst": {kind: answers.summary() for kind, answers in burst.items()},
            "burst_seen_by_another": seen.summary(),
            "normal_again_s": round(_normal_again_s(after["searches"], steady["searches"]), 1),
            "memory_mb": platform_measures.memory_mb(platform),
        }
        return figures


def _normal_again_s(after: Answers, steady: Answers) -> float:
    """Seconds into the last part until searches are no longer shed or slower than twice the steady p95.

    One in twenty may be: that is what a 95th percentile allows.
    """
    bound = 2 * float(np.percentile(steady.due_ms, 95))
    started = min(after.due_at_s)
    late = [
        due - started
        for due, taken, status in zip(after.due_at_s, after.due_ms, after.statuses, strict=True)
        if status in SHED or taken > bound
    ]
    late.sort()
    kept = late[: max(0, len(late) - len(after.due_at_s) // 20)]
    return kept[-1] if kept else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--searches", type=float, default=20.0, help="a second")
    parser.add_argument("--enrolments", type=float, default=10.0, help="a second")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    figures = load_run(options.minutes, options.searches, options.enrolments)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "load.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
