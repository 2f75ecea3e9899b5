"""The exact scan: which rows of some blocks are the most like a probe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.search.gallery.block import BlockView
from services.search.gallery.chunk import Chunk
from services.shared.biometric import Vector

Found = tuple[float, BlockView, Chunk, int]


def best_rows(views: Sequence[BlockView], probe: Vector, limit: int) -> list[Found]:
    """The `limit` best rows by float64 dot product, ties by reference_id."""
    chunks = [(view, part.chunk, part.count) for view in views for part in view.chunks if part.count]
    if not chunks:
        return []
    scores = np.concatenate([chunk.vectors[:count] @ probe for _, chunk, count in chunks])
    # A float32 dot product of unit vectors is off by less than dimension * 2^-23.
    slack = 2 * probe.shape[0] * 2.0**-23
    floor = -2.0 if len(scores) <= limit else np.partition(scores, -limit)[-limit] - slack
    starts = np.cumsum([0] + [count for _, _, count in chunks])
    found: list[Found] = []
    for number, (view, chunk, _) in enumerate(chunks):
        rows = np.flatnonzero(scores[starts[number] : starts[number + 1]] >= floor)
        exact = _exact_scores(chunk.vectors[rows], probe)
        found.extend((float(score), view, chunk, int(row)) for score, row in zip(exact, rows, strict=True))
    found.sort(key=lambda hit: (-hit[0], hit[2].reference_ids[hit[3]]))
    return found[:limit]


def _exact_scores(rows: npt.NDArray[np.float32], probe: Vector) -> npt.NDArray[np.float64]:
    """Dot products summed in float64, the same for equal rows wherever they stand; rounding stays in [-1, 1]."""
    products = rows.astype(np.float64) * probe.astype(np.float64)
    scores: npt.NDArray[np.float64] = products.sum(axis=1).clip(-1.0, 1.0)
    return scores
