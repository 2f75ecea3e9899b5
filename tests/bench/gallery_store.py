"""The gallery stage of a search, whole, beside the time to read the vectors once; and what writing costs.

    python -m tests.bench.gallery_store [--size 107500] [--rounds 300] [--out figures.json]

The gallery holds random unit vectors of 128 values under ids as long as real ones. Floor and search take turns, so
that a busy machine slows both; and the floor's reading drives the codes out of the near caches, as the rest of a real
search would.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.ports import ReferenceRecord, SearchScope
from services.shared.ids import new_id
from tests.bench.gallery_kernels import concurrently, read_floor
from tests.bench.reference_paths import Matrix, synthetic_gallery
from tests.bench.timing import Samples, side_by_side, timed_ms

SCOPE = [SearchScope("custody", frozenset({"northshire"}))]
LIMIT = 50


def records_of(count: int, version: int = 1) -> list[ReferenceRecord]:
    return [ReferenceRecord(new_id(), new_id(), "northshire", "custody", version, 0) for _ in range(count)]


class Bench:
    """One filled gallery per number of threads, and everything that is asked of it."""

    def __init__(self, size: int) -> None:
        self.vectors = synthetic_gallery(size)
        self.probes = synthetic_gallery(64, seed=2)
        self.records = records_of(size)

    def filled(self, threads: int) -> tuple[ExactGalleryStore, float, float]:
        """The store, the milliseconds it took to fill, the megabytes it added to the process."""
        store, process = ExactGalleryStore(threads), psutil.Process()
        store.open("model", self.vectors.shape[1])
        before = process.memory_info().rss
        took_ms = timed_ms(lambda: store.put(self.records, self.vectors))
        return store, took_ms, (process.memory_info().rss - before) / 1e6

    def search(self, store: ExactGalleryStore) -> Callable[[Matrix], object]:
        return lambda probe: store.search(probe, SCOPE, LIMIT)

    def latencies(self, stores: dict[str, ExactGalleryStore], rounds: int) -> dict[str, Any]:
        turn = iter(range(10**9))

        def search_of(store: ExactGalleryStore) -> Callable[[], object]:
            return lambda: store.search(self.probes[next(turn) % len(self.probes)], SCOPE, LIMIT)

        actions = {"read floor": read_floor(self.vectors)} | {name: search_of(store) for name, store in stores.items()}
        samples = side_by_side(actions, rounds)
        floor = samples["read floor"]
        return {
            name: {
                **taken.as_json(),
                "times_the_floor": round(taken.p50 / floor.p50, 2),
                "fastest_times_the_floor": round(taken.percentile(5) / floor.percentile(5), 2),
            }
            for name, taken in samples.items()
        }

    def writes(self, store: ExactGalleryStore, count: int) -> dict[str, Any]:
        """Single changes; and the searches of another thread meanwhile."""
        records, vectors = records_of(count), synthetic_gallery(count, seed=3)
        searches, stop = Samples(), threading.Event()

        def keep_searching() -> None:
            while not stop.is_set():
                searches.values_ms.append(timed_ms(lambda: store.search(self.probes[0], SCOPE, LIMIT)))
                time.sleep(0.01)

        searching = threading.Thread(target=keep_searching)
        searching.start()
        puts = Samples([timed_ms(lambda i=i: store.put([records[i]], vectors[i : i + 1])) for i in range(count)])  # type: ignore[misc]
        withdrawals = Samples(
            [timed_ms(lambda one=one: store.withdraw([one.reference_id], [2])) for one in self.records[:count]]  # type: ignore[misc]
        )
        stop.set()
        searching.join()
        return {
            "put one": puts.as_json(),
            "withdraw one": withdrawals.as_json(),
            "search meanwhile": searches.as_json(),
        }


def measure(size: int, rounds: int) -> dict[str, Any]:
    bench = Bench(size)
    one, put_ms, added_mb = bench.filled(threads=1)
    two, *_ = bench.filled(threads=2)
    figures = {
        "references": size,
        "put_all_ms": round(put_ms),
        "memory_mb": round(added_mb),
        "vectors_mb": round(bench.vectors.nbytes / 1e6),
        "latency": bench.latencies({"search, 1 thread": one, "search, 2 threads": two}, rounds),
        "callers": {
            str(callers): concurrently(bench.search(two), bench.probes, callers, max(10, rounds // callers))
            for callers in (1, 2, 8)
        },
        "writes": bench.writes(two, 100),
    }
    one.close()
    two.close()
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=107_500)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    figures = measure(chosen.size, chosen.rounds)
    print(json.dumps(figures, indent=1))
    if chosen.out:
        chosen.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
