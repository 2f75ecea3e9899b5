"""Coverage-guided fuzzing: `python -m tests.fuzz all --seconds 600`, or one target; figures at the end.

Each target runs in a process of its own, `--at-once` of them side by side. Whatever it finds is written beside the
corpus (`crash-…`), printed in base64 with the fuzzer's last words, and fails the run; `python -m tests.fuzz TARGET
--replay FILE` does that one attempt again. The corpus grows in LIKENESS_CACHE and starts from seeds made by code.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from services.shared.packages import cache_folder
from tests.fuzz.targets import TARGETS, Target

# An attempt over this is reported: the gate gives a picture five seconds of CPU, and others use the machine too.
SLOWEST_S = 25
LAST_WORDS = 3000  # characters of a log that end in a report
MEMORY_MB = 4096


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of one target did."""

    target: str
    seconds: float
    attempts: int
    coverage: int
    corpus: int
    failed: str = ""

    def __str__(self) -> str:
        said = f"FAILED: {self.failed}" if self.failed else "nothing found"
        return (
            f"{self.target:15} {self.attempts:9,} attempts in {self.seconds:4.0f} s, {self.coverage:5} points covered, "
            f"{self.corpus:4} inputs kept, {said}"
        )


def run(target: str, seconds: int, corpus: Path, *, seed: int = 0, slowest_s: int = SLOWEST_S) -> Figures:
    """Fuzz in a process of its own; its output is kept beside the corpus. The same `seed` draws the same inputs, as
    many as there is time for; 0 draws others every time."""
    corpus.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz", target, "--inside", f"--seconds={seconds}", f"--corpus={corpus}"]
    command += [f"--draw={seed}", f"--slowest={slowest_s}"]
    log = corpus.with_suffix(".log")
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=output, timeout=seconds * 3 + 300, check=False)
    text = log.read_text("utf-8", "replace")
    attempts = re.findall(r"Done (\d+) runs|^#(\d+)", text, re.MULTILINE)
    covered = re.findall(r"cov: (\d+)", text)
    return Figures(
        target=target,
        seconds=time.monotonic() - began,
        attempts=max((int(done_runs or shown) for done_runs, shown in attempts), default=0),
        coverage=int(covered[-1]) if covered else 0,
        corpus=len([path for path in corpus.iterdir() if path.is_file()]),
        failed="" if done.returncode == 0 else f"exit status {done.returncode}, see {log}",
    )


def finds(target: str, root: Path) -> str:
    """What a run that failed leaves to whoever mends it, also where its files are lost: inputs and last words."""
    said = [f"--- {target}: the end of its log", (root / f"{target}.log").read_text("utf-8", "replace")[-LAST_WORDS:]]
    for kind in ("crash", "timeout", "oom", "leak"):
        for path in sorted((root / f"{target}-finds").glob(f"{kind}-*")):
            content = base64.b64encode(path.read_bytes()).decode()
            said += [f"--- {target}: python -m tests.fuzz {target} --replay {path.name}, which is in base64:", content]
    return "\n".join(said)


def _fuzz(target: Target, seconds: int, corpus: Path, draw: int, slowest_s: int) -> None:
    """Never returns: the fuzzer ends the process."""
    import atheris  # type: ignore[import-untyped]  # noqa: PLC0415 - only the process that fuzzes has its hooks

    with atheris.instrument_imports(include=list(target.modules)):
        attempt = target.prepare()
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    found = corpus.with_name(f"{corpus.name}-finds")
    found.mkdir(exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={slowest_s}",
        f"-seed={draw}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        "-max_len=8192",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], attempt)
    atheris.Fuzz()


def _attempt_seeds(target: Target) -> None:
    attempt, seeds = target.prepare(), target.seeds()
    for seed in seeds:
        attempt(seed)
        attempt(seed[: len(seed) // 2])
        attempt(b"\0" + seed)
    print(len(seeds), "seeds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=int, default=600, help="altogether, of all targets")
    parser.add_argument("--at-once", type=int, default=1, help="targets side by side")
    parser.add_argument("--corpus", type=Path, help="a folder for each target; in LIKENESS_CACHE when not given")
    parser.add_argument("--replay", type=Path, help="one input")
    parser.add_argument("--seeds", action="store_true", help="every seed, whole, cut and shifted, once")
    parser.add_argument("--draw", type=int, default=0, help="the same number draws the same inputs; 0: others")
    parser.add_argument("--slowest", type=int, default=SLOWEST_S, help="seconds that an attempt may take")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replay is not None:
        TARGETS[given.target].prepare()(given.replay.read_bytes())
        return 0
    if given.seeds:
        _attempt_seeds(TARGETS[given.target])
        return 0
    if given.inside:
        _fuzz(TARGETS[given.target], given.seconds, given.corpus, given.draw, given.slowest)
        return 0
    chosen = list(TARGETS) if given.target == "all" else [given.target]
    root: Path = given.corpus or cache_folder() / "fuzz"
    return _run_all(chosen, max(1, given.seconds // len(chosen)), root, given.at_once)


def _run_all(chosen: Sequence[str], seconds: int, root: Path, at_once: int) -> int:
    failed = False
    with ThreadPoolExecutor(at_once) as threads:
        for figures in threads.map(lambda name: run(name, seconds, root / name), chosen):
            print(figures, flush=True)
            if figures.failed:
                failed = True
                print(finds(figures.target, root), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
