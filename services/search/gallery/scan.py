"""The exact scan: which rows of some blocks are the most like a probe.

1. The eight-bit codes are scanned for many times as many rows as are wanted, over one thread or more; once more for
   several times as many where too many rows are as good as the last of these.
2. Those rows that may be among the best, and those whose codes are bad, are scored in float64. `bar` is the score that
   the wanted number reach.
3. Any other row scores no more than the least code score of step 1 plus the error of its chunk's codes. A chunk for
   which that is below `bar` is proven; in any other the float32 vectors are scanned, and what may reach `bar` joins.
4. Best first, ties by reference_id.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.search.gallery.block import BlockView, ChunkView, Cuts
from services.search.gallery.codes import (
    LABEL_ROW_BITS,
    Codes,
    CodeScanner,
    CodeScores,
    ProbeCode,
    float_scores,
    usual_error,
)
from services.search.gallery.slots import Slots
from services.search.ports import GalleryHit
from services.shared.biometric import Vector

_CODES_IN_A_VECTOR = 4  # of equal bytes
# As many times what random vectors would need: faces of a few people, and copies of one picture, lie closer together.
# The second, which is another scan, where even that is too few; to keep more is less to read than the float vectors.
_KEPT = (4, 32)
_ROW_MASK = (1 << LABEL_ROW_BITS) - 1

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A chunk of a block."""

    view: BlockView
    chunk: ChunkView


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Codes that are scanned in one go: those of `first_part` and of the parts that follow it."""

    codes: Codes
    first_part: int


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """Rows with their exact scores. A label is the number of a part and the row in it."""

    labels: Labels
    scores: npt.NDArray[np.float64]

    def bar(self, limit: int) -> float:
        """The score that `limit` of these rows reach."""
        if len(self.scores) < limit:
            return -np.inf
        return float(np.partition(self.scores, -limit)[-limit])

    def with_part(self, number: int, part: _Scored) -> _Scored:
        """These rows, but for one part of the scan only what is given."""
        others = self.labels >> LABEL_ROW_BITS != number
        return _Scored(
            np.concatenate([self.labels[others], part.labels]), np.concatenate([self.scores[others], part.scores])
        )


class ExactScan:
    """Scans for any number of threads at once, of which at most `threads` run: more would only slow each other."""

    def __init__(self, dimension: int, threads: int, cuts: Cuts) -> None:
        self._slots = Slots(threads)
        self._cuts = cuts
        self._idle = [CodeScanner(dimension) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gallery-scan")
        self._handing_over = threading.Lock()
        self._is_closed = False
        # The scores of random unit vectors of d values spread by 1/sqrt(d), and four times that away from 0, where the
        # best of a million are, an error of e lets e^(4 e sqrt(d)) times as many rows come into question.
        self._spare = float(np.exp(4 * 1.5 * usual_error(dimension) * np.sqrt(dimension)))
        # Float32 sums of d products are off by less than d * 2^-23; the rest is for unit vectors that are not quite.
        self._slack = (dimension + 64) * 2.0**-22

    def best(
        self, views: Sequence[BlockView], probe: Vector, limit: int, *, at_most_threads: int | None = None
    ) -> list[GalleryHit]:
        """The `limit` best rows by float64 dot product, ties by reference_id. `probe`: contiguous float32."""
        parts = [Part(view, chunk) for view in views for chunk in view.chunks]
        rows = sum(view.count for view in views)
        if not rows:
            return []
        worth = rows // self._cuts.thread
        with self._slots.taken(at_most=min(worth, at_most_threads or worth)) as threads:
            scored = self._proven(parts, self._shares(views, rows, threads), probe, limit)
        return _ranked(parts, scored, limit)

    def close(self) -> None:
        """End the pool; a search that still runs goes on in its own thread."""
        with self._handing_over:
            self._is_closed = True
        self._pool.shutdown()

    def _proven(self, parts: Sequence[Part], shares: Sequence[Sequence[_Piece]], probe: Vector, limit: int) -> _Scored:
        """Exact scores of rows among which the answer is."""
        code, usual = ProbeCode.of(probe), int(limit * self._spare) + 32
        errors = code.score_error(np.array([part.chunk.code_error for part in parts], np.float32)) + self._slack
        rows = [len(part.chunk.columns.vectors) for part in parts]
        odd = sum(len(part.chunk.odd_rows) for part in parts)
        for keep in (usual * times for times in _KEPT):
            found = self._scan_codes(shares, code, keep)
            likely = _likely(found, limit + odd, float(errors.max()))
            scored = _score(parts, _with_odd_rows(parts, likely), probe)
            unproven = _unproven(found, keep, errors, scored.bar(limit))
            if sum(rows[number] for number in unproven) * _CODES_IN_A_VECTOR <= sum(rows):
                break
        for number in unproven:
            scored = scored.with_part(number, self._scan_floats(parts, number, probe, scored.bar(limit)))
        return scored

    def _shares(self, views: Sequence[BlockView], rows: int, threads: int) -> list[list[_Piece]]:
        """All codes, in order, about as many for each thread."""
        most = -(-rows // threads)
        most += -most % self._cuts.chunk  # a piece starts with a part
        shares: dict[int, list[_Piece]] = defaultdict(list)
        part = done = 0
        for codes in (codes for view in views for codes in view.codes):
            for start in range(0, len(codes), most):
                piece = _Piece(codes[start : start + most], part + start // self._cuts.chunk)
                shares[done * threads // rows].append(piece)
                done += len(piece.codes)
            part += -(-len(codes) // self._cuts.chunk)
        return list(shares.values())

    def _scan_codes(self, shares: Sequence[Sequence[_Piece]], probe: ProbeCode, keep: int) -> CodeScores:
        mine, *others = shares
        futures = self._handed_over(others, probe, keep)
        scores = [self._scan_share(mine, probe, keep)]
        if futures is None:
            scores += [self._scan_share(other, probe, keep) for other in others]
        else:
            scores += [future.result() for future in futures]
        return _best_of(scores, keep)

    def _handed_over(
        self, shares: Sequence[Sequence[_Piece]], probe: ProbeCode, keep: int
    ) -> list[Future[CodeScores]] | None:
        """Start the shares in other threads; None when those have ended."""
        with self._handing_over:
            if self._is_closed:
                return None
            return [self._pool.submit(self._scan_share, share, probe, keep) for share in shares]

    def _scan_share(self, share: Sequence[_Piece], probe: ProbeCode, keep: int) -> CodeScores:
        scanner = self._idle.pop()  # there is one for each slot
        try:
            found = scanner.best(probe, [piece.codes for piece in share], keep)
        finally:
            self._idle.append(scanner)
        rows = found.labels & _ROW_MASK
        parts = np.array([piece.first_part for piece in share])[found.labels >> LABEL_ROW_BITS]
        parts += rows // self._cuts.chunk
        return CodeScores(found.scores, parts << LABEL_ROW_BITS | rows % self._cuts.chunk)

    def _scan_floats(self, parts: Sequence[Part], number: int, probe: Vector, bar: float) -> _Scored:
        scores = float_scores(probe, parts[number].chunk.columns.vectors)
        rows = np.flatnonzero(scores >= bar - self._slack)
        return _score(parts, rows | (number << LABEL_ROW_BITS), probe)


def _likely(found: CodeScores, enough: int, error: float) -> Labels:
    """Those of the rows found that may be among the best. `enough`: as many as are wanted and, since the codes of odd
    rows may promise anything, as many more as there are of those; the rest are then better for certain than what is
    left out."""
    if len(found.scores) <= enough:
        return found.labels
    least = float(np.partition(found.scores, -enough)[-enough]) - error
    return found.labels[found.scores >= least - error]


def _unproven(found: CodeScores, keep: int, errors: npt.NDArray[np.float64], bar: float) -> list[int]:
    """The parts in which a row that was not among the `keep` found may reach `bar`."""
    if len(found.labels) < keep:  # there are no others
        return []
    could_reach = float(found.scores.min()) + errors
    return np.flatnonzero(could_reach >= bar).tolist()


def _with_odd_rows(parts: Sequence[Part], labels: Labels) -> Labels:
    odd = [
        part.chunk.odd_rows | (number << LABEL_ROW_BITS)
        for number, part in enumerate(parts)
        if len(part.chunk.odd_rows)
    ]
    return np.unique(np.concatenate([labels, *odd])) if odd else np.sort(labels)


def _best_of(several: Sequence[CodeScores], keep: int) -> CodeScores:
    if len(several) == 1:
        return several[0]
    scores = np.concatenate([found.scores for found in several])
    labels = np.concatenate([found.labels for found in several])
    if len(scores) <= keep:
        return CodeScores(scores, labels)
    best = np.argpartition(scores, -keep)[-keep:]
    return CodeScores(scores[best], labels[best])


def _score(parts: Sequence[Part], labels: Labels, probe: Vector) -> _Scored:
    """Dot products summed in float64, the same for equal vectors wherever they stand; rounding stays in [-1, 1].

    `labels` are sorted.
    """
    vectors = np.empty((len(labels), len(probe)), np.float32)
    bounds = np.searchsorted(labels, np.arange(len(parts) + 1) << LABEL_ROW_BITS).tolist()
    for part, start, stop in zip(parts, bounds[:-1], bounds[1:], strict=True):
        if start < stop:
            rows = labels[start:stop] & _ROW_MASK
            np.take(part.chunk.columns.vectors, rows, axis=0, out=vectors[start:stop], mode="clip")
    scores = np.einsum("ij,j->i", vectors.astype(np.float64), probe.astype(np.float64))
    return _Scored(labels, scores.clip(-1.0, 1.0))


def _ranked(parts: Sequence[Part], scored: _Scored, limit: int) -> list[GalleryHit]:
    reaching = np.flatnonzero(scored.scores >= scored.bar(limit))
    labels = scored.labels[reaching]
    places = list(zip((labels >> LABEL_ROW_BITS).tolist(), (labels & _ROW_MASK).tolist(), strict=True))
    ids = [parts[number].chunk.columns.reference_ids.item(row) for number, row in places]
    ranked = sorted(zip((-scored.scores[reaching]).tolist(), ids, places, strict=True))[:limit]
    return [
        GalleryHit(parts[number].view.record(parts[number].chunk, row), -score) for score, _, (number, row) in ranked
    ]
