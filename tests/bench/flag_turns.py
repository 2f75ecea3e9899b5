"""What comparing for flags does to the gallery stage of searches, in one process: beside them at once, or in turn.

    python -m tests.bench.flag_turns [--references 107500] [--rounds 8]

One search after another: 40 ms in which its picture is looked at elsewhere, then the gallery. In the background sixteen
references are compared again and again, at once (as if nobody waited), in turn (as the service does), or not at all.
The three take turns within one run, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import cast

import numpy as np

from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.identification.closing import Closing
from services.search.identification.trail import SearchTrail
from services.search.neighbours.finding import AwaitTurn, FindNeighbours, NeighbourQuery
from services.search.neighbours.points import FlagPoints, FlagPointsFile, PointEvidence
from services.search.ports import GalleryAnswer, ReferenceRecord, SearchScope, SearchStore
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.biometric import ModelProvenance, Vector
from services.shared.clock import SystemClock

_DIMENSION = 128
_SEARCHES = 25  # a round
_ELSEWHERE_S = 0.04
_LIMIT = 80
_SCOPE = SearchScope("custody", frozenset({"northshire"}))
_MODEL = ModelProvenance("m", "d", "", "r", "", "", _DIMENSION, "p", "", "")


class _Keeper(GalleryKeeper):
    """A gallery that is ready."""

    def __init__(self, store: ExactGalleryStore) -> None:
        self._exact = store

    def require_ready(self) -> ModelProvenance:
        return _MODEL

    def search_aside(self, model_id: str, probe: Vector, scopes: object, limit: int) -> GalleryAnswer:
        return self._exact.search_aside(probe, (_SCOPE,), limit)


class _Points(FlagPointsFile):
    def __init__(self) -> None:
        evidence = PointEvidence(reference="a benchmark")
        self._only = FlagPoints(
            model_id="m",
            same_person=0.55,
            strong=0.65,
            near_identical=0.93,
            duplicate=0.93,
            unlike=0.2,
            version="1",
            evidence=evidence,
        )

    def find(self, model: ModelProvenance) -> FlagPoints | None:
        return self._only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=107_500)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("build/flag_turns.json"))
    options = parser.parse_args()
    figures = _measure(options.references, options.rounds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1), "utf-8")
    print(json.dumps(figures, indent=1))


def _measure(references: int, rounds: int) -> dict[str, dict[str, float]]:
    vectors = np.random.default_rng(1).standard_normal((references, _DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = ExactGalleryStore()
    store.open("m", _DIMENSION)
    store.put([ReferenceRecord(f"r-{n}", f"S-{n}", "northshire", "custody", 1, 0) for n in range(references)], vectors)
    closing = Closing(cast("SearchStore", None), cast("SearchTrail", None), SystemClock(), 20.0)
    ways: dict[str, AwaitTurn | None] = {"none": None, "at once": lambda _: True, "in turn": closing.wait_for_none}
    took: dict[str, list[float]] = {name: [] for name in ways}
    compared = dict.fromkeys(ways, 0)
    for _ in range(rounds):
        for name, turn in ways.items():
            with _comparing(store, vectors[:16], turn) as count:
                took[name] += [_search(closing, store, vector) for vector in vectors[-_SEARCHES:]]
                compared[name] += count()
    store.close()
    quiet = statistics.median(took["none"])
    return {
        name: {
            "gallery_p50_ms": round(statistics.median(ms), 2),
            "gallery_p95_ms": round(statistics.quantiles(ms, n=20)[-1], 2),
            "of_none": round(statistics.median(ms) / quiet, 2),
            "compared_a_search": round(compared[name] / len(ms), 2),
        }
        for name, ms in took.items()
    }


def _search(closing: Closing, store: ExactGalleryStore, vector: Vector) -> float:
    """Milliseconds of the gallery."""
    with closing.running("search"):
        sleep(_ELSEWHERE_S)
        started_s = perf_counter()
        store.search(vector, (_SCOPE,), _LIMIT)
        took_ms = (perf_counter() - started_s) * 1000
    sleep(0.005)  # the answer goes out, the next request comes
    return took_ms


@contextmanager
def _comparing(store: ExactGalleryStore, vectors: Vector, turn: AwaitTurn | None) -> Iterator[Callable[[], int]]:
    done, stop = [0], Event()

    def work() -> None:
        own = np.empty((0, _DIMENSION), np.float32)
        assert turn is not None
        finding = FindNeighbours(_Keeper(store), _Points(), SystemClock(), turn)
        while not stop.is_set():
            for vector in vectors:
                finding(_SCOPE, "m", [NeighbourQuery("new", "S", vector, own)])
                done[0] += 1
                if stop.is_set():
                    return

    thread = Thread(target=work)
    if turn is not None:
        thread.start()
    try:
        yield lambda: done[0]
    finally:
        stop.set()
        if turn is not None:
            thread.join(60)


if __name__ == "__main__":
    main()
