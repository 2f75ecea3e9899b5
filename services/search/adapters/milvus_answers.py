"""What Milvus answered, judged; and which of several versions of a reference counts. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from services.search.adapters import milvus_schema as schema
from services.search.ports import GalleryHit, ReferenceRecord, SearchScope
from services.shared.biometric import Vector
from services.shared.errors import GalleryIncomplete, LikenessError, ModelMismatch

UNIT_TOLERANCE = 1e-4  # a float32 unit vector is off by a few 1e-7; what is further off was not normalised

TIE = 1e-6  # float32 sums that are closer than this can stand in another order when they are summed in float64

T = TypeVar("T")


class HeldRow(NamedTuple):
    """A row of the collection without its vector."""

    row_id: str
    watchlist_id: str
    version: int


def checked_hits(found: Any, watchlists: frozenset[str], owners: frozenset[str]) -> list[GalleryHit]:
    """Hits, best first. Raises GalleryIncomplete for an answer that cannot be true."""
    try:
        [raw] = found
        hits = [GalleryHit(schema.record_of(hit["entity"]), float(hit["distance"])) for hit in raw]
        # Not from the hits: newer servers tell the key's name, and then it stands there under that.
        is_aligned = all(key == row_id_of(checked) for key, checked in zip(raw.ids, hits, strict=True))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise untrue(f"a field that is missing or odd: {error}") from error
    if not all(abs(hit.score) <= 1.0 + UNIT_TOLERANCE for hit in hits):  # also false for NaN
        raise untrue("a score that is no cosine")
    if not all(hit.reference.watchlist_id in watchlists and hit.reference.owner in owners for hit in hits):
        raise untrue("a reference that was not asked for")
    if not is_aligned:
        raise untrue("fields of another reference")
    # Rounding can put a cosine a hair outside its range.
    return [GalleryHit(hit.reference, min(1.0, max(-1.0, hit.score))) for hit in hits]


def once_each(hits: Sequence[GalleryHit]) -> list[GalleryHit]:
    """While a row replaces another both are served for a moment; the newest counts."""
    best: dict[str, GalleryHit] = {}
    for hit in hits:
        twin = best.get(hit.reference.reference_id)
        if twin is None or twin.reference.version < hit.reference.version:
            best[hit.reference.reference_id] = hit
    return list(best.values())


def too_close_to_order(hits: Sequence[GalleryHit], limit: int) -> set[str]:
    """Rows among the first `limit` (and those tied with them) whose scores are too close for float32 to order."""
    close: set[str] = set()
    for place, (better, worse) in enumerate(pairwise(hits), 1):
        if better.score - worse.score <= TIE:
            close |= {row_id_of(better), row_id_of(worse)}
        elif place >= limit:
            break
    return close


def owners_by_watchlist(scopes: Sequence[SearchScope]) -> dict[str, frozenset[str]]:
    """The permitted owners of each watchlist; a scope without owners permits nothing."""
    owners_of: dict[str, frozenset[str]] = {}
    for scope in scopes:
        if scope.owners:
            owners_of[scope.watchlist_id] = owners_of.get(scope.watchlist_id, frozenset()) | scope.owners
    return owners_of


def cosine_of(vector: Sequence[float], probe: Vector) -> float:
    score = float(np.asarray(vector, np.float64) @ probe.astype(np.float64))
    return min(1.0, max(-1.0, score))


def untrue(what: str) -> LikenessError:
    return GalleryIncomplete(
        f"Milvus returned {what}.", advice="Operators: reconcile the gallery with the ledger, or rebuild it."
    )


def other_model(held: str, held_dimension: int, wanted: str, wanted_dimension: int) -> ModelMismatch:
    return ModelMismatch(
        f"The gallery holds {held_dimension}-value templates of {held}, "
        f"not {wanted_dimension}-value templates of {wanted}.",
        advice="Name another collection for the new model and fill it from the ledger.",
    )


def rank_key(hit: GalleryHit) -> tuple[float, str]:
    return (-hit.score, hit.reference.reference_id)


def row_id_of(hit: GalleryHit) -> str:
    return schema.row_id(hit.reference.reference_id, hit.reference.version)


def newest_version(rows: Sequence[HeldRow]) -> int:
    return max((row.version for row in rows), default=-1)


def newest_places(records: Sequence[ReferenceRecord]) -> dict[str, int]:
    """For each reference the place of its newest version in the batch, the first of equals."""
    newest: dict[str, int] = {}
    for i, record in enumerate(records):
        known = newest.get(record.reference_id)
        if known is None or records[known].version < record.version:
            newest[record.reference_id] = i
    return newest


def is_news(record: ReferenceRecord, held: Sequence[HeldRow], withdrawn: int | None) -> bool:
    """At the same version a withdrawal wins over an insert, whichever comes first."""
    return record.version > newest_version(held) and (withdrawn is None or record.version > withdrawn)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def require_unit_rows(vectors: npt.NDArray[np.float32], rows: int, dimension: int) -> None:
    if vectors.shape != (rows, dimension):
        raise ValueError(f"vectors must have the shape ({rows}, {dimension}), not {vectors.shape}")
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not np.all(np.abs(norms - 1.0) <= UNIT_TOLERANCE):  # also false for NaN
        raise ValueError("vectors must be finite unit rows")
