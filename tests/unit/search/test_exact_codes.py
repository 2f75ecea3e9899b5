"""The bound on what codes hide, and the kernels that it rests on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from services.search.gallery.codes import (
    LABEL_ROW_BITS,
    Codes,
    CodeScanner,
    ProbeCode,
    encode,
    float_scores,
    step_of,
    usual_error,
)

Matrix = npt.NDArray[np.float32]


def unit(rows: npt.NDArray[np.float64]) -> Matrix:
    normalised: Matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return normalised


def gaussian(count: int, dimension: int, seed: int = 0) -> Matrix:
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


def heavy_tailed(count: int, dimension: int, seed: int = 0) -> Matrix:
    return unit(np.random.default_rng(seed).standard_t(2, (count, dimension)))


def one_hot(count: int, dimension: int, seed: int = 0) -> Matrix:
    rows = np.eye(dimension)[np.random.default_rng(seed).integers(0, dimension, count)]
    return unit(rows * np.random.default_rng(seed).choice([-1.0, 1.0], (count, 1)))


@pytest.mark.parametrize("drawn", [gaussian, heavy_tailed, one_hot])
@pytest.mark.parametrize("dimension", [1, 2, 7, 100, 128, 512])
class TestBound:
    def test_every_score_is_within_it(self, drawn: object, dimension: int) -> None:
        assert callable(drawn)
        vectors, probes = drawn(500, dimension), drawn(5, dimension, 1)
        codes, errors = encode(vectors)
        scanner = CodeScanner(dimension)
        for probe in probes:
            code = ProbeCode.of(probe)
            found = scanner.best(code, [codes], len(codes))
            truth = vectors.astype(np.float64) @ probe.astype(np.float64)
            assert sorted(found.labels.tolist()) == list(range(500))
            slack = 1e-6
            assert np.all(np.abs(found.scores - truth[found.labels]) <= code.score_error(errors)[found.labels] + slack)

    def test_row_errors_are_distances(self, drawn: object, dimension: int) -> None:
        assert callable(drawn)
        vectors = drawn(3000, dimension)
        codes, errors = encode(vectors)
        decoded = (codes.astype(np.float64) - 128) * step_of(dimension)
        np.testing.assert_allclose(errors, np.linalg.norm(vectors - decoded, axis=1), atol=1e-6)


def test_few_random_vectors_have_unusual_codes() -> None:
    _, errors = encode(gaussian(50_000, 128))
    assert np.count_nonzero(errors > usual_error(128)) < 50


def test_cut_components_show_in_the_error() -> None:
    _, errors = encode(one_hot(4, 128))
    assert np.all(errors > 0.5)


@pytest.mark.parametrize("dimension", [1, 31, 64, 128, 130, 512])
def test_the_scan_keeps_the_best_of_all_pieces(dimension: int) -> None:
    """Against whole-number arithmetic, which the kernels must equal exactly."""
    drawn = np.random.default_rng(dimension)
    pieces: list[Codes] = [drawn.integers(1, 256, (rows, dimension)).astype(np.uint8) for rows in (700, 1, 300)]
    probe = ProbeCode.of(gaussian(1, dimension)[0])
    truth = {
        number << LABEL_ROW_BITS | row: float(score)
        for number, codes in enumerate(pieces)
        for row, score in enumerate((codes.astype(np.int64) - 128) @ probe.values.astype(np.int64))
    }
    found = CodeScanner(dimension).best(probe, pieces, 50)
    kept = [truth[label] for label in found.labels.tolist()]
    assert sorted(kept, reverse=True) == sorted(truth.values(), reverse=True)[:50]
    np.testing.assert_allclose(found.scores, np.array(kept) * step_of(dimension) * probe.step, rtol=1e-5, atol=1e-7)


def test_a_scanner_can_be_used_again() -> None:
    codes, _ = encode(gaussian(1000, 128))
    scanner = CodeScanner(128)
    first, second = (ProbeCode.of(probe) for probe in gaussian(2, 128, seed=1))
    before = scanner.best(first, [codes], 10)
    scanner.best(second, [codes], 400)
    after = scanner.best(first, [codes], 10)
    assert sorted(before.labels) == sorted(after.labels)


def test_fewer_rows_than_asked_for() -> None:
    codes, _ = encode(gaussian(3, 128))
    assert len(CodeScanner(128).best(ProbeCode.of(gaussian(1, 128)[0]), [codes], 10).labels) == 3


def test_float_scores_are_dot_products() -> None:
    vectors, probe = gaussian(1000, 128), gaussian(1, 128, seed=1)[0]
    truth = vectors.astype(np.float64) @ probe.astype(np.float64)
    np.testing.assert_allclose(float_scores(probe, vectors), truth, atol=1e-6)
