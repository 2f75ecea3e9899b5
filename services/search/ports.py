"""The ports of search: to the gallery and to its own record of searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from services.search.identification.requests import SearchRequest
from services.shared.biometric import Vector
from services.shared.tokens import Principal


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


@dataclass(frozen=True, slots=True)
class HeldReferences:
    """References of one watchlist as a store holds them. `vectors`: (len(reference_ids), dimension)."""

    watchlist_id: str
    reference_ids: Sequence[str]
    versions: Sequence[int]
    vectors: npt.NDArray[np.float32]


@runtime_checkable
class ListsReferences(Protocol):
    """A gallery store that can say all that it holds, for reconciliation."""

    def references(self) -> Iterator[HeldReferences]:
        """In batches, in any order. What changes meanwhile may be in it or not. Raises DependencyUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """One subject of a candidate list with its best reference. `score` is the raw cosine, never edited."""

    rank: int
    subject_id: str
    reference_id: str
    watchlist_id: str
    owner: str
    score: float


@runtime_checkable
class SearchesAside(Protocol):
    """A gallery store that can search for what nobody waits for, with less in the way of what somebody does."""

    def search_aside(self, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        """The same answer as `GalleryStore.search`, with the same errors."""
        ...


class SearchStatus(StrEnum):
    """OPEN: running, or its outcome is not known yet. DONE has an answer; all others disclosed nothing."""

    OPEN = "open"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class NewSearch:
    """A search as it stands before it runs.

    `outcome_entry_id` is the id of its one terminal audit entry, chosen beforehand: whoever writes the outcome, and
    however often, the log keeps the first. `policy` is the digest of the policies by which it was permitted.
    """

    search_id: str
    outcome_entry_id: str
    principal: Principal
    request: SearchRequest
    probe_sha256: str
    probe_size_bytes: int
    opened_at: datetime
    idempotency_key: str | None = None
    policy: str = ""


@dataclass(frozen=True, slots=True)
class StoredSearch:
    """A search as it was stored. `result` is the answer's JSON without the stage times, `problem` why there is none.

    `is_closed` says that its terminal audit entry is known to be in the log; before that nothing of it is disclosed.
    """

    search_id: str
    outcome_entry_id: str
    principal: Principal
    case_reference: str
    purpose: str
    watchlists: tuple[str, ...]
    probe_sha256: str
    status: SearchStatus
    opened_at: datetime
    is_closed: bool
    result: bytes | None
    timings_ms: Mapping[str, float] | None
    problem: Mapping[str, Any] | None
    # Since when its sealed probe is gone, because its case is over.
    probe_erased_at: datetime | None = None


class SearchStore(Protocol):
    """Searches and their results. Every method is one transaction, durable when it returns.

    All raise DependencyUnavailable when the store cannot be used.
    """

    def open(self, search: NewSearch) -> StoredSearch | None:
        """Record a search before anything is done for it.

        With an idempotency key that the same person used before: the earlier search when it was done or refused, and
        nothing is recorded; a search that failed is replaced. Raises Conflict when the key was used for another
        request, and with the code `search_running` while the earlier search has no outcome.
        """
        ...

    def finish(self, search_id: str, result: bytes, candidates: Sequence[Candidate], model_id: str) -> None:
        """Store the answer of an open search."""
        ...

    def stop(self, search_id: str, status: SearchStatus, problem: Mapping[str, Any]) -> None:
        """Store why a search has no answer; an answer that was stored is taken back."""
        ...

    def close(self, closed: Mapping[str, Mapping[str, float] | None]) -> None:
        """The terminal audit entries of these searches are in the log; with the stage times where known."""
        ...

    def unclosed(self, limit: int) -> Sequence[StoredSearch]:
        """Searches whose terminal audit entry is not known to be in the log, oldest first."""
        ...

    def find(self, search_id: str) -> StoredSearch | None:
        """The search as it stands, of any force: whoever asks checks who may see it."""
        ...
