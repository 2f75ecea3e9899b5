"""Eight-bit codes of unit vectors: a quarter of the bytes to read, and a bound on what they hide.

A vector x has a code that stands for x', a probe q one for q'. The score read from the codes is x'·q' exactly, and

    |x·q - x'·q'|  <=  |x - x'| |q|  +  |x'| |q - q'|        (Cauchy and Schwarz)

where |x - x'| is kept with each row and |q - q'| is found for each probe. The scan uses the bound to prove that it
missed nothing; where it cannot, it reads the float32 vectors. How good the codes are is a matter of speed, never of
the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from services.shared.biometric import Vector
from services.shared.errors import ConfigurationError

Codes = npt.NDArray[np.uint8]

# A component of a unit vector of d values has a root mean square of 1/sqrt(d). In face templates and random unit
# vectors hardly one row in ten thousand has a component over 5 times that; it is cut, which the row's error then says.
_RANGE_IN_RMS = 5.0
_LARGEST_CODE = 127
_ZERO = 128  # the code that stands for 0
# A label is the number of a piece and a row in it, as faiss packs them.
LABEL_ROW_BITS = 32
_ROWS_AT_ONCE = 2048  # temporaries stay in the cache

_kernels: Any = faiss  # its stubs lack the scanner of inverted lists


@dataclass(frozen=True, slots=True, eq=False)
class CodeScores:
    """The best codes of a scan, in no order: score x'·q' and label, which is the number of the piece and the row."""

    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ProbeCode:
    """q' is `values` (whole numbers) times `step`; `error` is |q - q'|."""

    values: Vector
    step: float
    error: float

    @classmethod
    def of(cls, probe: Vector) -> ProbeCode:
        step = np.float32(np.abs(probe).max() / _LARGEST_CODE)
        values = np.rint(probe / step)
        return cls(values, float(step), float(np.linalg.norm(probe - values * step)))

    def score_error(self, row_errors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What the score of a row may be off by, for a probe and rows of length 1."""
        errors = row_errors.astype(np.float64)
        bound: npt.NDArray[np.float64] = errors + (1 + errors) * self.error
        return bound


def step_of(dimension: int) -> float:
    """The difference between what neighbouring codes of a row stand for."""
    return float(min(_RANGE_IN_RMS / np.sqrt(dimension), 1.0) / _LARGEST_CODE)


def usual_error(dimension: int) -> float:
    """What |x - x'| stays below in all but a few rows: rounding spreads evenly over a step; a fifth is for chance."""
    return float(1.2 * step_of(dimension) * np.sqrt(dimension / 12))


def encode(vectors: npt.NDArray[np.float32]) -> tuple[Codes, npt.NDArray[np.float32]]:
    """Codes (rows, dimension) and for each row |x - x'|."""
    codes = np.empty(vectors.shape, np.uint8)
    errors = np.empty(len(vectors), np.float32)
    step = np.float32(step_of(vectors.shape[1]))
    for rows in _slices(len(vectors)):
        whole = np.clip(np.rint(vectors[rows] / step), -_LARGEST_CODE, _LARGEST_CODE)
        codes[rows] = whole + _ZERO
        lost = vectors[rows] - whole * step
        errors[rows] = np.sqrt(np.einsum("ij,ij->i", lost, lost))
    return codes, errors


class CodeScanner:
    """One thread's scan over codes, with the kernels that faiss has for this processor. Made once and used again."""

    def __init__(self, dimension: int) -> None:
        self._step = step_of(dimension)
        self._quantiser: Any = _kernels.ScalarQuantizer(dimension, _kernels.ScalarQuantizer.QT_8bit_direct_signed)
        # The scanner of inverted lists reads codes where they are and keeps one heap over many lists. Its Python
        # wrapper cannot free it (faiss 1.15), hence "made once".
        self._scanner: Any = self._quantiser.select_InvertedListScanner(
            _kernels.METRIC_INNER_PRODUCT, None, True, None, False
        )
        self._require_whole_number_products(dimension)

    def best(self, probe: ProbeCode, pieces: Sequence[Codes], keep: int) -> CodeScores:
        """The `keep` best of some contiguous arrays; fewer where there are fewer. Releases the GIL."""
        products, labels = self._products(probe.values, pieces, keep)
        scale = np.float32(self._step * probe.step)
        return CodeScores(products * scale, labels)

    def _products(
        self, values: Vector, pieces: Sequence[Codes], keep: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        products = np.full(keep, -np.inf, np.float32)
        labels = np.full(keep, -1, np.int64)
        heap = _kernels.swig_ptr(products), _kernels.swig_ptr(labels)
        self._scanner.set_query(_kernels.swig_ptr(values))
        for number, codes in enumerate(pieces):
            self._scanner.set_list(number, 0.0)
            self._scanner.scan_codes(len(codes), _kernels.swig_ptr(codes), None, *heap, keep)
        found = labels >= 0
        return products[found], labels[found]

    def _require_whole_number_products(self, dimension: int) -> None:
        """The bound holds for exact products of codes only. Kernels differ by processor, so they are asked here."""
        drawn = np.random.default_rng(dimension)
        codes = drawn.integers(1, 256, (100, dimension)).astype(np.uint8)
        values = drawn.integers(-_LARGEST_CODE, _LARGEST_CODE + 1, dimension).astype(np.float32)
        products, labels = self._products(values, [codes], len(codes))
        expected = (codes.astype(np.float64) - _ZERO) @ values.astype(np.float64)
        if len(labels) != len(codes) or np.any(np.abs(products - expected[labels]) > 2.0**-20 * np.abs(expected).max()):
            raise ConfigurationError(
                "The scan kernels of faiss give wrong products on this processor.",
                advice="Set FAISS_SIMD_LEVEL to another level, or install another release of faiss-cpu.",
            )


def float_scores(probe: Vector, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Dot products with contiguous rows, in this thread alone (numpy's would wake a pool of its own)."""
    scores = np.empty(len(vectors), np.float32)
    _kernels.fvec_inner_products_ny(*map(_kernels.swig_ptr, (scores, probe, vectors)), vectors.shape[1], len(vectors))
    return scores


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, count, _ROWS_AT_ONCE))
