"""The gallery in this process: exact, lock-free to search, rebuilt from the ledger at start."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from services.search.gallery.block import Block, BlockView, Cuts
from services.search.gallery.codes import Codes, encode
from services.search.gallery.columns import Columns, text_column
from services.search.gallery.directory import WITHDRAWN, Directory
from services.search.gallery.scan import ExactScan
from services.search.ports import GalleryAnswer, HeldReferences, PutOutcome, ReferenceRecord, SearchScope
from services.shared.biometric import Vector
from services.shared.cores import usable_cores
from services.shared.errors import ConfigurationError, GalleryIncomplete, ModelMismatch

# A float32 unit vector is off by a few 1e-7; what is further off was not normalised.
UNIT_TOLERANCE = 1e-5
# A place in the directory is the number of a block and the row in it.
ROW_BITS = 40

BlockKey = tuple[str, str]
Numbers = npt.NDArray[np.int64]


class ExactGalleryStore:
    """GalleryStore in memory. A search reads one published state from start to end and waits for no writer.

    At the same version a withdrawal wins over an insert, whichever comes first. `threads`: how many scan at once, by
    default one a processor; a single search over many references uses those that are idle.
    """

    def __init__(self, threads: int | None = None, cuts: Cuts | None = None) -> None:
        self._threads = threads or usable_cores()
        self._cuts = cuts or Cuts()
        self._writing = threading.Lock()
        self._model_id = ""
        self._dimension = 0
        self._scan: ExactScan | None = None
        self._blocks: list[Block] = []
        self._number_of: dict[BlockKey, int] = {}
        self._directory = Directory()
        self._published: Mapping[BlockKey, BlockView] = {}

    @property
    def name(self) -> str:
        return "exact in-process"

    @property
    def needs_rebuild(self) -> bool:
        return True

    def open(self, model_id: str, dimension: int) -> None:
        if dimension < 1:
            raise ConfigurationError(
                f"A template cannot have {dimension} values.", advice="Set the dimension that the model states."
            )
        with self._writing:
            if self._scan and (model_id, dimension) == (self._model_id, self._dimension):
                return
            if self._published:
                raise ModelMismatch(
                    f"The gallery holds {self._dimension}-value templates of {self._model_id}, "
                    f"not {dimension}-value templates of {model_id}.",
                    advice="Start an empty gallery for the new model and fill it from the ledger.",
                )
            self._close_scan()
            self._model_id, self._dimension = model_id, dimension
            self._scan = ExactScan(dimension, self._threads, self._cuts)

    def put(self, records: Sequence[ReferenceRecord], vectors: npt.NDArray[np.float32]) -> PutOutcome:
        with self._writing:
            self._require_open()
            _require_unit_rows(vectors, len(records), self._dimension)
            codes, code_errors = encode(np.ascontiguousarray(vectors, np.float32))
            batch = Columns.of(records, vectors, code_errors)
            places, held = self._directory.find(batch.reference_ids)
            is_news = (batch.versions > held) & _is_newest(records)
            touched = self._remove(places[is_news & (places >= 0)])
            touched |= self._append(records, batch, codes, is_news)
            self._publish(touched)
            put = int(is_news.sum())
            return PutOutcome(put=put, unchanged=len(records) - put)

    def withdraw(self, reference_ids: Sequence[str], versions: Sequence[int]) -> int:
        if len(reference_ids) != len(versions):
            raise ValueError(f"{len(reference_ids)} reference ids but {len(versions)} versions")
        newest: dict[str, int] = {}
        for reference_id, version in zip(reference_ids, versions, strict=True):
            newest[reference_id] = max(version, newest.get(reference_id, version))
        ids, at_version = text_column(list(newest)), np.array(list(newest.values()), np.int64)
        with self._writing:
            self._require_open()
            places, held = self._directory.find(ids)
            is_due = at_version >= held
            removed = places[is_due & (places >= 0)]
            touched = self._remove(removed)
            self._directory.set(ids[is_due], np.full(int(is_due.sum()), WITHDRAWN), at_version[is_due])
            self._publish(touched)
        return len(removed)

    def standing(self, reference_ids: Sequence[str]) -> Sequence[bool]:
        """For each id whether it stands in the gallery now."""
        with self._writing:
            places, _ = self._directory.find(text_column(list(reference_ids)))
        return [place >= 0 for place in places.tolist()]

    def search(self, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        return self._searched(probe, scopes, limit)

    def search_aside(self, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        """As `search`, with one thread and no more: what nobody waits for leaves the others to searches."""
        return self._searched(probe, scopes, limit, at_most_threads=1)

    def _searched(
        self, probe: Vector, scopes: Sequence[SearchScope], limit: int, at_most_threads: int | None = None
    ) -> GalleryAnswer:
        scan, published = self._scan, self._published
        if scan is None:
            raise GalleryIncomplete("The gallery is not open yet.", advice="Search again when the service is ready.")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        _require_unit_rows(np.atleast_2d(probe), 1, self._dimension)
        views = [published[key] for key in _permitted(scopes) if key in published]
        hits = scan.best(views, np.ascontiguousarray(probe, np.float32), limit, at_most_threads=at_most_threads)
        return GalleryAnswer(hits=hits, compared=sum(view.count for view in views))

    def references(self) -> Iterator[HeldReferences]:
        for view in self._published.values():
            for chunk in view.chunks:
                columns = chunk.columns
                yield HeldReferences(
                    view.watchlist_id,
                    [name.decode() for name in columns.reference_ids.tolist()],
                    columns.versions.tolist(),
                    columns.vectors,
                )

    def counts(self) -> Mapping[BlockKey, int]:
        return {key: view.count for key, view in self._published.items()}

    def close(self) -> None:
        with self._writing:
            self._close_scan()
            self._model_id, self._dimension, self._scan = "", 0, None
            self._blocks, self._number_of, self._directory = [], {}, Directory()
            self._published = {}

    def _close_scan(self) -> None:
        if self._scan:
            self._scan.close()

    def _require_open(self) -> None:
        if not self._scan:
            raise ConfigurationError("The gallery is not open.", advice="Open it for a model before filling it.")

    def _remove(self, places: Numbers) -> set[int]:
        """Take references out of their blocks; returns the numbers of the blocks that changed."""
        numbers = places >> ROW_BITS
        touched = set(np.unique(numbers).tolist())
        for number in touched:
            moved = self._blocks[number].remove(places[numbers == number] & ((1 << ROW_BITS) - 1))
            self._directory.set(moved.reference_ids, (number << ROW_BITS) | moved.rows, moved.versions)
        return touched

    def _append(
        self, records: Sequence[ReferenceRecord], batch: Columns, codes: Codes, is_news: npt.NDArray[np.bool_]
    ) -> set[int]:
        by_key: dict[BlockKey, list[int]] = defaultdict(list)
        for i in np.flatnonzero(is_news).tolist():
            by_key[records[i].watchlist_id, records[i].owner].append(i)
        for key, chosen in by_key.items():
            # A batch that goes to one block whole, as a rebuild's do, is not copied once more.
            rows = slice(None) if len(chosen) == len(records) else np.array(chosen)
            part, number = Columns(*(column[rows] for column in batch.fields())), self._block_number(key)
            places = (number << ROW_BITS) | self._blocks[number].append(part, codes[rows])
            self._directory.set(part.reference_ids, places, part.versions)
        return {self._number_of[key] for key in by_key}

    def _block_number(self, key: BlockKey) -> int:
        if key not in self._number_of:
            self._number_of[key] = len(self._blocks)
            self._blocks.append(Block(*key, self._cuts))
        return self._number_of[key]

    def _publish(self, numbers: Iterable[int]) -> None:
        changed = {self._blocks[number].key: self._blocks[number].view() for number in numbers}
        published = {**self._published, **changed}
        self._published = {key: view for key, view in published.items() if view.count}


def _permitted(scopes: Sequence[SearchScope]) -> set[BlockKey]:
    return {(scope.watchlist_id, owner) for scope in scopes for owner in scope.owners}


def _is_newest(records: Sequence[ReferenceRecord]) -> npt.NDArray[np.bool_]:
    """For each record whether it is the newest, and of equals the first, of its reference in this batch."""
    if len({record.reference_id for record in records}) == len(records):
        return np.ones(len(records), np.bool_)
    newest: dict[str, int] = {}
    for i, record in enumerate(records):
        if (known := newest.setdefault(record.reference_id, i)) != i and records[known].version < record.version:
            newest[record.reference_id] = i
    is_newest = np.zeros(len(records), np.bool_)
    is_newest[list(newest.values())] = True
    return is_newest


def _require_unit_rows(vectors: npt.NDArray[np.float32], rows: int, dimension: int) -> None:
    if vectors.shape != (rows, dimension):
        raise ValueError(f"vectors must have the shape ({rows}, {dimension}), not {vectors.shape}")
    squares = np.einsum("ij,ij->i", vectors, vectors)
    if not np.all(np.abs(squares - 1.0) <= 2 * UNIT_TOLERANCE):  # also false for NaN
        raise ValueError("vectors must be finite unit rows")
