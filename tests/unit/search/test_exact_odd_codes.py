"""Rows whose codes promise more than the rows hold take no place from those that are better."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.ports import ReferenceRecord, SearchScope

DIMENSION = 128


def vector(first: float, rest: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """A unit vector with this first value and the others in the direction of `rest`."""
    scaled = rest / np.linalg.norm(rest) * np.sqrt(1 - first**2)
    return np.concatenate([[first], scaled]).astype(np.float32)


def test_codes_that_are_cut_and_promise_too_much_push_nobody_out() -> None:
    drawn, ones = np.random.default_rng(5), np.ones(DIMENSION - 1)
    probe = vector(0.6, ones)
    # Their first value is cut to -0.44, so that the codes say 0.31 where the score is 0.15.
    promising = [vector(-0.7, ones)] * 10
    plain = []
    for _ in range(1000):
        away = drawn.standard_normal(DIMENSION - 1)
        away -= away.mean()
        plain.append(vector(0.0, ones * 0.23 / np.linalg.norm(ones) + away / np.linalg.norm(away)))
    vectors = np.stack([*promising, *plain])
    records = [ReferenceRecord(f"r{number:04}", f"s{number}", "northshire", "custody", 1, 0) for number in range(1010)]
    store = ExactGalleryStore()
    store.open("m", DIMENSION)
    store.put(records, vectors)
    hits = store.search(probe, [SearchScope("custody", frozenset({"northshire"}))], 10).hits
    scores = vectors.astype(np.float64) @ probe.astype(np.float64)
    best = np.argsort(-scores)[:10]
    assert min(scores[10:]) > max(scores[:10])
    assert [hit.reference.reference_id for hit in hits] == [f"r{number:04}" for number in best]
    store.close()
