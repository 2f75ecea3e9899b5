"""From gallery hits to a candidate list: one candidate a subject, threshold, order. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from services.search.ports import Candidate, GalleryHit, ReferenceRecord, SearchScope


def meets_threshold(score: float, threshold: float | None) -> bool:
    """Whether a score is at or over a threshold; None asks for none.

    Compared as float32, the precision in which scores are made: 0.7 as a float32 is smaller than 0.7 as a float64, and
    a score equal to the threshold must count.
    """
    return threshold is None or bool(np.float32(score) >= np.float32(threshold))


def is_permitted(reference: ReferenceRecord, scopes: Iterable[SearchScope], at_unix_s: float) -> bool:
    """Whether a reference is in one of the scopes and has not expired at a moment; the expiry instant is too late."""
    if reference.expires_at and reference.expires_at <= at_unix_s:
        return False
    return any(scope.watchlist_id == reference.watchlist_id and reference.owner in scope.owners for scope in scopes)


def list_candidates(
    hits: Sequence[GalleryHit],
    limit: int,
    *,
    thresholds: Mapping[str, float] | None,
    may_be_returned: Callable[[ReferenceRecord], bool],
) -> tuple[Candidate, ...]:
    """The best reference of each subject, best score first, ties by reference_id, at most `limit`.

    A subject is (owner, subject_id): two forces may use one identifier for two persons. `thresholds` gives each
    watchlist's threshold in identification mode, None otherwise. What may not be returned is dropped before the list is
    cut, so that it takes nobody's place.
    """
    best: dict[tuple[str, str], GalleryHit] = {}
    for hit in sorted(hits, key=lambda hit: (-hit.score, hit.reference.reference_id)):
        reference = hit.reference
        threshold = None if thresholds is None else thresholds[reference.watchlist_id]
        if meets_threshold(hit.score, threshold) and may_be_returned(reference):
            best.setdefault((reference.owner, reference.subject_id), hit)
    return tuple(
        Candidate(
            rank=rank,
            subject_id=hit.reference.subject_id,
            reference_id=hit.reference.reference_id,
            watchlist_id=hit.reference.watchlist_id,
            owner=hit.reference.owner,
            score=hit.score,
        )
        for rank, hit in enumerate(list(best.values())[:limit], start=1)
    )
