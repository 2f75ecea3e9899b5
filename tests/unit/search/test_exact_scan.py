"""Exactness where codes are at their worst, with one thread and several."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.gallery.block import Cuts
from services.search.ports import ReferenceRecord, SearchScope

Matrix = npt.NDArray[np.float32]
ROWS, DIMENSION = 6000, 128
SCOPE = [SearchScope("custody", frozenset({"northshire"}))]


def unit(rows: npt.NDArray[np.float64]) -> Matrix:
    normalised: Matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return normalised


def random_rows(draw: np.random.Generator) -> Matrix:
    return unit(draw.standard_normal((ROWS, DIMENSION)))


def one_row_in_ten_cut(draw: np.random.Generator) -> Matrix:
    rows = draw.standard_normal((ROWS, DIMENSION))
    rows[::10, 3] = 40.0  # the codes of these are far off, and they are like each other
    return unit(rows)


def a_few_cut(draw: np.random.Generator) -> Matrix:
    rows = draw.standard_normal((ROWS, DIMENSION))
    rows[:5, 3] = 40.0
    return unit(rows)


def all_cut(draw: np.random.Generator) -> Matrix:
    return unit(draw.standard_normal((ROWS, DIMENSION)) ** 5)


def one_hot(draw: np.random.Generator) -> Matrix:
    return unit(np.eye(DIMENSION)[draw.integers(0, DIMENSION, ROWS)])


def closer_than_codes_tell(draw: np.random.Generator) -> Matrix:
    """Every row within 0.002 of the next: hundreds have the same code."""
    return unit(draw.standard_normal((1, DIMENSION)) + 1e-3 * draw.standard_normal((ROWS, DIMENSION)))


def all_equal(draw: np.random.Generator) -> Matrix:
    return np.repeat(unit(draw.standard_normal((1, DIMENSION))), ROWS, axis=0)


def a_few_opposites(draw: np.random.Generator) -> Matrix:
    rows = random_rows(draw)
    rows[::2] = -rows[1::2]
    return rows


GALLERIES = [
    random_rows,
    one_row_in_ten_cut,
    a_few_cut,
    all_cut,
    one_hot,
    closer_than_codes_tell,
    all_equal,
    a_few_opposites,
]


@pytest.fixture(params=[(1, Cuts()), (3, Cuts(chunk=512, codes=4096, thread=500))], ids=["one thread", "three threads"])
def store(request: pytest.FixtureRequest) -> Iterator[ExactGalleryStore]:
    store = ExactGalleryStore(*request.param)
    store.open("model", DIMENSION)
    yield store
    store.close()


@pytest.mark.parametrize("gallery", GALLERIES)
def test_the_answer_is_that_of_brute_force(store: ExactGalleryStore, gallery: object) -> None:
    assert callable(gallery)
    draw = np.random.default_rng(7)
    vectors: Matrix = gallery(draw)
    ids = [f"{number:05d}" for number in draw.permutation(ROWS)]
    store.put([ReferenceRecord(name, "s", "northshire", "custody", 1, 0) for name in ids], vectors)
    probes = np.concatenate([vectors[:2], unit(draw.standard_normal((3, DIMENSION)))])
    for probe in probes:
        scores = (vectors.astype(np.float64) * probe.astype(np.float64)).sum(axis=1).clip(-1, 1)
        order = sorted(range(ROWS), key=lambda row, scores=scores: (-scores[row], ids[row]))  # type: ignore[misc]
        for limit in (1, 20, 200):
            hits = store.search(probe, SCOPE, limit).hits
            assert [hit.reference.reference_id for hit in hits] == [ids[row] for row in order[:limit]]
            np.testing.assert_allclose([hit.score for hit in hits], scores[order[:limit]], atol=1e-12)


def test_a_search_that_runs_while_the_store_closes_is_answered_or_refused(store: ExactGalleryStore) -> None:
    vectors = random_rows(np.random.default_rng(1))
    store.put([ReferenceRecord(str(row), "s", "northshire", "custody", 1, 0) for row in range(ROWS)], vectors)
    scan, views = store._scan, list(store._published.values())
    store.close()
    assert scan is not None
    assert len(scan.best(views, vectors[0], 5)) == 5
