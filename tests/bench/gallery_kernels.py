"""The ways to scan a gallery that were weighed against each other, side by side.

    python -m tests.bench.gallery_kernels [--sizes 10000 107500 1000000] [--rounds 200] [--only faiss likeness]

Every kernel answers the same probes with the 50 best of the same random unit vectors of 128 values, in turn with a
plain reading of all vectors, so that a busy machine slows both. simsimd, numkong and usearch are no dependencies: they
take part where somebody has installed them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from services.search.gallery.block import Block, Cuts
from services.search.gallery.codes import encode
from services.search.gallery.columns import Columns
from services.search.gallery.scan import ExactScan
from services.search.ports import ReferenceRecord
from tests.bench.reference_paths import synthetic_gallery
from tests.bench.timing import Samples, side_by_side

Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Kernel = Callable[[Matrix], Rows]  # a probe -> the rows of the LIMIT best

LIMIT = 50
KEEP = 4 * LIMIT  # candidates that an eight-bit scan hands to the float scoring
BLOCK_ROWS = 8192
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_faiss: Any = faiss


def best(scores: npt.NDArray[Any], limit: int) -> Rows:
    limit = min(limit, len(scores))
    top = np.argpartition(scores, -limit)[-limit:]
    return top[np.argsort(-scores[top])].astype(np.int64)


def rescored(vectors: Matrix, rows: Rows, probe: Matrix) -> Rows:
    return rows[best(vectors[rows] @ probe, LIMIT)]


def best_by_groups(scores: npt.NDArray[Any], limit: int) -> Rows:
    """All rows that reach what `limit` groups of 32 rows reach: a superset of the best, cheaper than to partition."""
    if len(scores) < 64 * limit:
        return best(scores, limit)
    groups = scores[: len(scores) // 32 * 32].reshape(-1, 32).max(axis=1)
    return np.flatnonzero(scores >= np.partition(groups, -limit)[-limit]).astype(np.int64)


def numpy_matrix(vectors: Matrix) -> Kernel:
    return lambda probe: best(vectors @ probe, LIMIT)


def numpy_blocks(vectors: Matrix) -> Kernel:
    def search(probe: Matrix) -> Rows:
        starts = range(0, len(vectors), BLOCK_ROWS)
        kept = [best(vectors[start : start + BLOCK_ROWS] @ probe, LIMIT) + start for start in starts]
        return rescored(vectors, np.concatenate(kept), probe)

    return search


def faiss_flat(vectors: Matrix, threads: int = 1) -> Kernel:
    index = _faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search(probe: Matrix) -> Rows:
        _faiss.omp_set_num_threads(threads)
        rows: Rows = index.search(probe[None], LIMIT)[1][0]
        return rows

    return search


def faiss_quantiser(vectors: Matrix, quantiser: str) -> Kernel:
    """IndexScalarQuantizer and float scoring of what it finds."""
    index = _faiss.IndexScalarQuantizer(
        vectors.shape[1], getattr(_faiss.ScalarQuantizer, quantiser), _faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors)
    index.add(vectors)
    return lambda probe: rescored(vectors, index.search(probe[None], KEEP)[1][0], probe)


def likeness(vectors: Matrix, threads: int = 1) -> Kernel:
    """What the gallery does: codes, proof, float64 scores and ids."""
    records = [ReferenceRecord(f"{row:036d}", f"{row:036d}", "o", "w", 1, 0) for row in range(len(vectors))]
    codes, errors = encode(vectors)
    block = Block("w", "o", Cuts())
    block.append(Columns.of(records, vectors, errors), codes)
    views = [block.view()]
    scan = ExactScan(vectors.shape[1], threads, Cuts())

    def search(probe: Matrix) -> Rows:
        return np.array([int(hit.reference.reference_id) for hit in scan.best(views, probe, LIMIT)], np.int64)

    return search


def signed(vectors: Matrix) -> npt.NDArray[np.int8]:
    return (encode(vectors)[0].astype(np.int16) - 128).astype(np.int8)


def probe_codes(probe: Matrix) -> npt.NDArray[np.int8]:
    codes: npt.NDArray[np.int8] = np.rint(probe * (127 / np.abs(probe).max())).astype(np.int8)
    return codes


def simsimd_codes(vectors: Matrix) -> Kernel:
    simsimd, codes = importlib.import_module("simsimd"), signed(vectors)

    def search(probe: Matrix) -> Rows:
        scores = np.asarray(simsimd.cdist(probe_codes(probe)[None], codes, "dot"))[0]
        return rescored(vectors, best_by_groups(scores, KEEP), probe)

    return search


def numkong_codes(vectors: Matrix) -> Kernel:
    numkong = importlib.import_module("numkong")
    packed = numkong.dots_pack(signed(vectors))

    def search(probe: Matrix) -> Rows:
        scores = np.asarray(numkong.dots_packed(probe_codes(probe)[None], packed))[0]
        return rescored(vectors, best_by_groups(scores, KEEP), probe)

    return search


def usearch_codes(vectors: Matrix) -> Kernel:
    usearch, codes = importlib.import_module("usearch.index"), signed(vectors)

    def search(probe: Matrix) -> Rows:
        found = usearch.search(codes, probe_codes(probe), KEEP, usearch.MetricKind.IP, exact=True, threads=1)
        return rescored(vectors, np.asarray(found.keys).astype(np.int64), probe)

    return search


def in_two_shards(make: Callable[[Matrix], Kernel], vectors: Matrix) -> Kernel:
    """One search over two threads, for kernels that use one."""
    half = len(vectors) // 2
    first, second = make(vectors[:half]), make(vectors[half:])
    pool = ThreadPoolExecutor(1)

    def search(probe: Matrix) -> Rows:
        other = pool.submit(second, probe)
        return rescored(vectors, np.concatenate([first(probe), other.result() + half]), probe)

    return search


@dataclass(frozen=True)
class Contender:
    name: str
    make: Callable[[Matrix], Kernel]
    needs: str = "numpy"


CONTENDERS = [
    Contender("numpy matrix product", numpy_matrix),
    Contender("numpy in blocks", numpy_blocks),
    Contender("numpy in blocks, 2 shards", lambda v: in_two_shards(numpy_blocks, v)),
    Contender("faiss flat", faiss_flat),
    Contender("faiss flat, 2 OpenMP threads", lambda v: faiss_flat(v, 2)),
    Contender("faiss flat, 2 shards", lambda v: in_two_shards(faiss_flat, v)),
    Contender("faiss fp16", lambda v: faiss_quantiser(v, "QT_fp16")),
    Contender("faiss 8 bit, float products", lambda v: faiss_quantiser(v, "QT_8bit")),
    Contender("simsimd 8 bit", simsimd_codes, "simsimd"),
    Contender("numkong 8 bit, packed", numkong_codes, "numkong"),
    Contender("usearch exact 8 bit", usearch_codes, "usearch"),
    Contender("likeness (faiss 8 bit, proven)", likeness),
    Contender("likeness, 2 threads", lambda v: likeness(v, 2)),
]


def available(named: Sequence[str]) -> list[Contender]:
    """Those whose name begins with one of these, and that are installed."""
    return [one for one in CONTENDERS if one.name.startswith(tuple(named)) and find_spec(one.needs) is not None]


def truths(vectors: Matrix, probes: Matrix) -> list[set[int]]:
    """The 50 best of each probe by float64."""
    starts = range(0, len(vectors), BLOCK_ROWS)
    wide = probes.astype(np.float64).T
    scores = np.concatenate([vectors[start : start + BLOCK_ROWS].astype(np.float64) @ wide for start in starts])
    return [set(best(scores[:, number], LIMIT).tolist()) for number in range(len(probes))]


def recall(kernel: Kernel, probes: Matrix, truth: Sequence[set[int]]) -> float:
    found = [len(rows & set(kernel(probe).tolist())) for probe, rows in zip(probes, truth, strict=True)]
    return sum(found) / (len(truth) * LIMIT)


def concurrently(kernel: Callable[[Matrix], object], probes: Matrix, callers: int, searches: int) -> dict[str, float]:
    """Searches a second and latencies when several callers search without a pause."""

    def call(seed: int) -> list[float]:
        times = []
        for turn in range(searches):
            started = time.perf_counter()
            kernel(probes[(seed + turn) % len(probes)])
            times.append((time.perf_counter() - started) * 1000)
        return times

    with ThreadPoolExecutor(callers) as pool:
        started = time.perf_counter()
        times = [one for calls in pool.map(call, range(callers)) for one in calls]
        took = time.perf_counter() - started
    samples = Samples(times)
    return {
        "searches_per_s": round(callers * searches / took),
        "p50_ms": round(samples.p50, 3),
        "p99_ms": round(samples.p99, 3),
    }


def read_floor(vectors: Matrix) -> Callable[[], object]:
    """Reads every byte once and does next to nothing with it."""
    return vectors.reshape(-1).view(np.int64).max


def measured(one: Contender, vectors: Matrix, probes: Matrix, truth: Sequence[set[int]], rounds: int) -> dict[str, Any]:
    """One kernel in turn with the read floor, so that only one is in memory."""
    kernel, turn = one.make(vectors), iter(range(10**9))
    samples = side_by_side(
        {"floor": read_floor(vectors), "kernel": lambda: kernel(probes[next(turn) % len(probes)])}, rounds
    )
    floor, taken = samples["floor"], samples["kernel"]
    return {
        **taken.as_json(),
        "floor_p50_ms": round(floor.p50, 3),
        "times_the_floor": round(taken.p50 / floor.p50, 2),
        "fastest_times_the_floor": round(taken.percentile(5) / floor.percentile(5), 2),
        "recall": recall(kernel, probes[: len(truth)], truth),
        "eight_callers": concurrently(kernel, probes, 8, max(5, rounds // 8)),
    }


def measure(size: int, rounds: int, named: Sequence[str] = ("",)) -> dict[str, Any]:
    vectors, probes = synthetic_gallery(size), synthetic_gallery(64, seed=2)
    figures: dict[str, Any] = {}
    truth = truths(vectors, probes[:5])
    for one in available(named):
        line = figures[one.name] = measured(one, vectors, probes, truth, rounds)
        print(
            f"{size:>9,}  {one.name:32s} p50 {line['p50_ms']:8.3f} ms  p99 {line['p99_ms']:8.3f}  "
            f"{line['times_the_floor']:5.2f} ({line['fastest_times_the_floor']:5.2f}) x floor  "
            f"recall {line['recall']:.3f}  8 callers "
            f"{line['eight_callers']['searches_per_s']:6,}/s p99 {line['eight_callers']['p99_ms']:8.2f}",
            flush=True,
        )
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 107_500, 1_000_000])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="kernels whose names begin like this")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    figures = {
        str(size): measure(size, chosen.rounds if size < 500_000 else chosen.rounds // 4, chosen.only)
        for size in chosen.sizes
    }
    if chosen.out:
        chosen.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # Pools of threads read their size when they are loaded, so the measuring starts anew with it set.
        command = [sys.executable, "-m", "tests.bench.gallery_kernels", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, **ONE_THREAD}, check=False).returncode)
    main()
