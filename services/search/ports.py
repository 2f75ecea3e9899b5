"""The port of search to the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.shared.biometric import Vector


@dataclass(frozen=True, slots=True)
class ReferenceRecord:
    """What the gallery knows of one reference beside its vector. `expires_at` is Unix seconds, 0 for never."""

    reference_id: str
    subject_id: str
    owner: str
    watchlist_id: str
    version: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class SearchScope:
    """A permitted part of the gallery: one watchlist, and of it the references of these owners only."""

    watchlist_id: str
    owners: frozenset[str]


@dataclass(frozen=True, slots=True)
class GalleryHit:
    """One reference with its raw cosine in [-1, 1]."""

    reference: ReferenceRecord
    score: float


@dataclass(frozen=True, slots=True)
class GalleryAnswer:
    """The best references, best score first, ties by reference_id; and how many were compared."""

    hits: Sequence[GalleryHit]
    compared: int


@dataclass(frozen=True, slots=True)
class PutOutcome:
    put: int
    unchanged: int


class GalleryStore(Protocol):
    """References of one model, partitioned by watchlist. Exact. Safe for many searching and one writing thread at once.

    Contract tests: tests/contract/test_gallery_store.py, run for every adapter.
    """

    @property
    def name(self) -> str:
        """What it is, for answers and metrics: "exact in-process", "milvus 2.3.5 FLAT"."""
        ...

    @property
    def needs_rebuild(self) -> bool:
        """Whether it starts empty and has to be filled from the ledger before the first search."""
        ...

    def open(self, model_id: str, dimension: int) -> None:
        """Prepare for one model. Raises ModelMismatch when it holds templates of another, ConfigurationError."""
        ...

    def put(self, records: Sequence[ReferenceRecord], vectors: npt.NDArray[np.float32]) -> PutOutcome:
        """Insert or replace, visible to the next search. `vectors`: (len(records), dimension), unit rows.

        Idempotent by (reference_id, version): nothing older than what is held, or than a withdrawal, takes effect.
        Raises ValueError for a wrong shape or rows that are not finite unit vectors, DependencyUnavailable.
        """
        ...

    def withdraw(self, reference_ids: Sequence[str], versions: Sequence[int]) -> int:
        """Remove; returns how many were there. Remembered, so that a late insert of an older version stays out."""
        ...

    def search(self, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        """The `limit` best references of the scopes; nothing outside them is compared.

        Raises GalleryIncomplete when a part of a scope cannot be searched or the answer is not whole,
        DependencyUnavailable when the store does not answer.
        """
        ...

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Searchable references by (watchlist_id, owner)."""
        ...

    def close(self) -> None: ...
