"""The gallery in this process: exact, lock-free to search, rebuilt from the ledger at start."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from services.search.gallery.block import Block, BlockView
from services.search.gallery.scan import best_rows
from services.search.ports import GalleryAnswer, GalleryHit, PutOutcome, ReferenceRecord, SearchScope
from services.shared.biometric import Vector
from services.shared.errors import ConfigurationError, GalleryIncomplete, ModelMismatch

# A float32 unit vector is off by a few 1e-7; what is further off was not normalised.
UNIT_TOLERANCE = 1e-4

BlockKey = tuple[str, str]
Place = tuple[BlockKey, int]


class ExactGalleryStore:
    """GalleryStore in memory. A search reads one published state from start to end and waits for nobody.

    At the same version a withdrawal wins over an insert, whichever comes first.
    """

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._model_id: str | None = None
        self._dimension = 0
        self._blocks: dict[BlockKey, Block] = {}
        self._places: dict[str, Place] = {}
        self._withdrawn: dict[str, int] = {}
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
            if self._places and (model_id, dimension) != (self._model_id, self._dimension):
                raise ModelMismatch(
                    f"The gallery holds {self._dimension}-value templates of {self._model_id}, "
                    f"not {dimension}-value templates of {model_id}.",
                    advice="Start an empty gallery for the new model and fill it from the ledger.",
                )
            self._model_id, self._dimension = model_id, dimension

    def put(self, records: Sequence[ReferenceRecord], vectors: npt.NDArray[np.float32]) -> PutOutcome:
        with self._writing:
            self._require_open()
            _require_unit_rows(vectors, len(records), self._dimension)
            wanted = self._newest_of(records)
            self._publish(self._apply(records, vectors, wanted))
            return PutOutcome(put=len(wanted), unchanged=len(records) - len(wanted))

    def withdraw(self, reference_ids: Sequence[str], versions: Sequence[int]) -> int:
        if len(reference_ids) != len(versions):
            raise ValueError(f"{len(reference_ids)} reference ids but {len(versions)} versions")
        removed = 0
        touched: set[BlockKey] = set()
        with self._writing:
            for reference_id, version in zip(reference_ids, versions, strict=True):
                self._withdrawn[reference_id] = max(version, self._withdrawn.get(reference_id, version))
                place = self._places.get(reference_id)
                if place is None or self._blocks[place[0]].version(place[1]) > version:
                    continue
                self._remove(reference_id)
                touched.add(place[0])
                removed += 1
            self._publish(touched)
        return removed

    def search(self, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        published, dimension = self._published, self._dimension
        if not dimension:
            raise GalleryIncomplete("The gallery is not open yet.", advice="Wait until the service is ready.")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        _require_unit_rows(probe[None, :], 1, dimension)
        views = [published[key] for key in _permitted_keys(scopes) if key in published]
        hits = [
            GalleryHit(view.record(chunk, row), score)
            for score, view, chunk, row in best_rows(views, np.ascontiguousarray(probe, np.float32), limit)
        ]
        return GalleryAnswer(hits=hits, compared=sum(view.count for view in views))

    def counts(self) -> Mapping[BlockKey, int]:
        return {key: view.count for key, view in self._published.items()}

    def close(self) -> None:
        with self._writing:
            self._model_id, self._dimension = None, 0
            self._blocks, self._places, self._withdrawn, self._published = {}, {}, {}, {}

    def _require_open(self) -> None:
        if not self._dimension:
            raise ConfigurationError("The gallery is not open.", advice="Open it for a model before filling it.")

    def _newest_of(self, records: Sequence[ReferenceRecord]) -> list[int]:
        """Which of the records take effect: newer than held and than withdrawn, the newest of the same id."""
        newest: dict[str, int] = {}
        for i, record in enumerate(records):
            known = newest.get(record.reference_id)
            if self._is_news(record) if known is None else records[known].version < record.version:
                newest[record.reference_id] = i
        return list(newest.values())

    def _is_news(self, record: ReferenceRecord) -> bool:
        withdrawn = self._withdrawn.get(record.reference_id)
        if withdrawn is not None and withdrawn >= record.version:
            return False
        place = self._places.get(record.reference_id)
        return place is None or self._blocks[place[0]].version(place[1]) < record.version

    def _apply(
        self, records: Sequence[ReferenceRecord], vectors: npt.NDArray[np.float32], wanted: Sequence[int]
    ) -> set[BlockKey]:
        """Carry out the wanted inserts; returns the blocks that changed."""
        appended: dict[BlockKey, list[int]] = defaultdict(list)
        touched: set[BlockKey] = set()
        for i in wanted:
            key, place = _key(records[i]), self._places.get(records[i].reference_id)
            touched.add(key)
            self._withdrawn.pop(records[i].reference_id, None)
            if place is not None and place[0] == key:
                self._blocks[key].replace(place[1], records[i], vectors[i])
                continue
            if place is not None:
                self._remove(records[i].reference_id)
                touched.add(place[0])
            appended[key].append(i)
        for key, chosen in appended.items():
            block = self._blocks.get(key) or self._blocks.setdefault(key, Block(*key, self._dimension))
            new = [records[i] for i in chosen]
            rows = block.append(new, vectors[chosen])
            self._places.update((record.reference_id, (key, row)) for record, row in zip(new, rows, strict=True))
        return touched

    def _remove(self, reference_id: str) -> None:
        key, row = self._places.pop(reference_id)
        moved = self._blocks[key].remove(row)
        if moved is not None:
            self._places[moved] = (key, row)

    def _publish(self, keys: set[BlockKey]) -> None:
        if not keys:
            return
        published = dict(self._published)
        for key in keys:
            if self._blocks[key].count:
                published[key] = self._blocks[key].view()
            else:
                published.pop(key, None)
                del self._blocks[key]
        self._published = published


def _key(record: ReferenceRecord) -> BlockKey:
    return (record.watchlist_id, record.owner)


def _permitted_keys(scopes: Sequence[SearchScope]) -> set[BlockKey]:
    return {(scope.watchlist_id, owner) for scope in scopes for owner in scope.owners}


def _require_unit_rows(vectors: npt.NDArray[np.float32], rows: int, dimension: int) -> None:
    if vectors.shape != (rows, dimension):
        raise ValueError(f"vectors must have the shape ({rows}, {dimension}), not {vectors.shape}")
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not np.all(np.abs(norms - 1.0) <= UNIT_TOLERANCE):  # also false for NaN
        raise ValueError("vectors must be finite unit rows")
