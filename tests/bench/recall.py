"""Whether what was found is what is there: the platform's answer, and the gallery's, against float64 brute force.

The references are read from the platform's own ledger. Every one of the best must be there, in order, with its score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.rpc.clients import LedgerClient
from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.ports import ReferenceRecord, SearchScope
from tests.bench.platform_measures import OWNER, WATCHLIST
from tests.support.platform import Platform

WANTED = 50
_PROBES = 200
_SCORE_TOLERANCE = 1e-6

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class References:
    """What the ledger holds of one watchlist; every one a subject of its own, as the benchmark's are."""

    ids: npt.NDArray[np.str_]
    vectors: Matrix
    exact: npt.NDArray[np.float64]

    @classmethod
    def of(cls, platform: Platform, model_id: str) -> References:
        ids: list[str] = []
        parts: list[Matrix] = []
        with platform.channel("ingest", "search") as channel:
            for batch in LedgerClient(channel).read_references(model_id):
                if batch.watchlist_id == WATCHLIST:
                    ids += batch.reference_ids
                    parts.append(np.frombuffer(batch.vectors, "<f4").reshape(-1, batch.dimension))
        vectors = np.concatenate(parts)
        return cls(np.array(ids), vectors, vectors.astype(np.float64))

    def best(self, probe: Matrix, count: int) -> list[tuple[str, float]]:
        """By float64 products over everything; equals by id."""
        scores = np.clip(self.exact @ probe.astype(np.float64), -1.0, 1.0)
        bar = np.partition(scores, -count)[-count]
        rows = np.flatnonzero(scores >= bar)
        ranked = sorted((-scores[row], str(self.ids[row])) for row in rows)[:count]
        return [(name, -negative) for negative, name in ranked]


def recall(platform: Platform, model_id: str, template: Matrix, answer: Mapping[str, Any]) -> dict[str, Any]:
    """`answer` is that of a REST search of the probe whose template this is; WANTED candidates were asked for."""
    references = References.of(platform, model_id)
    found = [(item["reference_id"], float(item["score"])) for item in answer["candidates"]]
    return {
        "references": len(references.ids),
        "wanted": WANTED,
        "rest": _share(found, references.best(template, WANTED)),
        "gallery_probes": _PROBES,
        "gallery": _of_gallery(references),
    }


def _of_gallery(references: References) -> float:
    """Of the gallery that search runs, filled with the same references: random probes, and references disturbed."""
    store = ExactGalleryStore()
    store.open("recall", references.vectors.shape[1])
    records = [ReferenceRecord(str(name), str(name), OWNER, WATCHLIST, 1, 0) for name in references.ids]
    for start in range(0, len(records), 10_000):
        store.put(records[start : start + 10_000], references.vectors[start : start + 10_000])
    shares = []
    for probe in _probes(references.vectors):
        hits = store.search(probe, [SearchScope(WATCHLIST, frozenset({OWNER}))], WANTED).hits
        found = [(hit.reference.reference_id, hit.score) for hit in hits]
        shares.append(_share(found, references.best(probe, WANTED)))
    store.close()
    return float(np.mean(shares))


def _probes(vectors: Matrix) -> Iterator[Matrix]:
    drawn = np.random.default_rng(5)
    for number in range(_PROBES):
        probe: npt.NDArray[np.float64] = drawn.standard_normal((vectors.shape[1],))
        if number % 2:
            # From almost the same picture to hardly the same person.
            reference = vectors[int(drawn.integers(len(vectors)))].astype(np.float64)
            probe = reference + drawn.uniform(0.05, 2.0) * _unit(probe)
        yield _unit(probe).astype(np.float32)


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return vector / float(np.linalg.norm(vector))


def _share(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> float:
    """Of the expected those that stand in their place with their score."""
    matching = [
        one[0] == other[0] and abs(one[1] - other[1]) <= _SCORE_TOLERANCE
        for one, other in zip(found, expected, strict=False)
    ]
    return sum(matching) / len(expected)
